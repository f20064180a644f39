"""The loop on parts that are nobody's: when it logs, validates, saves and stops, and that any training can hand it its own."""

import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kaleido_fast.training.engine import Engine
from kaleido_fast.training.fed_samples import FedSamples
from kaleido_fast.training.length import RunLength
from kaleido_fast.training.loop import DONE, LOST, STOPPED, Loop
from kaleido_fast.training.lost import RunLost
from kaleido_fast.training.progress import Progress
from kaleido_fast.training.settings import RunSettings, TrainSettings
from kaleido_fast.training.workers.group import Workers, start_workers
from kaleido_fast.training.workers.stop import StopRequest

BATCH = 16


class Distance(NamedTuple):
    """What the toy's micro-batch came to."""

    loss: Tensor
    summed: Tensor


class Toy(nn.Module):
    """One number that shall become 1."""

    def __init__(self) -> None:
        super().__init__()
        self.number = nn.Parameter(torch.zeros(1))

    def forward(self, rows: float) -> Distance:
        summed = BATCH * (self.number - 1).abs().sum()
        return Distance(summed / rows, summed.detach())


@dataclass
class ToyStep:
    engine: Engine
    seen: list[tuple[int, int]] = field(default_factory=list)

    def count(self, batch: Any) -> dict[str, int]:
        return {"toys": BATCH}

    def forward(self, batch: Any, num_rows: Mapping, num_step_rows: Mapping, step: int, micro: int) -> Distance:
        assert num_step_rows["toys"] == 2 * num_rows["toys"] == 2 * BATCH, "the rows of both micro-batches"
        self.seen.append((step, micro))
        return self.engine(num_step_rows["toys"])


class ToyMeter:
    def __init__(self) -> None:
        self.sum, self.rows = torch.zeros(()), 0.0

    def add(self, result: Distance, rows: Mapping) -> None:
        self.sum, self.rows = self.sum + result.summed, self.rows + rows["toys"]

    def totals(self, workers: Workers) -> dict:
        return {"toys": {"sum": float(self.sum), "rows": self.rows}}

    def read(self, workers: Workers) -> dict:
        report = {"distance": float(self.sum) / self.rows}
        self.__init__()
        return report

    def headline(self, report: Mapping) -> dict[str, str]:
        return {"distance": f"{report['distance']:.2f}"}


@dataclass
class ToyValidation:
    engine: Engine

    def measure(self) -> dict:
        return {"distance": abs(float(self.engine.module.number.detach()) - 1)}


@dataclass
class BestRecords:
    """What fine-tuning needs of records: checkpoints, and the weights whose validation was the best."""

    engine: Engine
    events: list[str] = field(default_factory=list)
    saved: list[Progress] = field(default_factory=list)
    best: tuple[float, dict] = (float("inf"), {})

    def write(self, line: dict[str, Any]) -> None:
        kind = "validate" if "validation" in line else "log"
        self.events.append(f"{kind} {line['step']}")
        if kind == "validate" and line["validation"]["distance"] < self.best[0]:
            self.best = line["validation"]["distance"], self.engine.weights()

    def save(self, progress: Progress) -> None:
        self.events.append(f"save {progress.step}")
        self.saved.append(progress)

    def end(self, progress: Progress, how: str, lost: RunLost | None = None) -> None:
        self.events.append(f"{how} {progress.step}")


def _batches() -> Iterator[SimpleNamespace]:
    for first in range(0, 1 << 20, BATCH):
        host = SimpleNamespace(samples=np.arange(first, first + BATCH), present=np.ones(BATCH, bool))
        yield SimpleNamespace(host=host)


def _loop(stop: StopRequest, **settings: Any) -> Loop:
    train = TrainSettings(**{"steps": 7, "micro_batch": BATCH, "accumulation": 2, "warmup_steps": 1, "learning_rate": 0.4,
                             "log_every": 3, "validate_every": 2, "checkpoint_every": 4} | settings)
    workers = start_workers("cpu", 60)
    torch.manual_seed(0)
    engine = Engine(Toy(), train, RunSettings(device="cpu"), 1)
    split = SimpleNamespace(num_samples=1000, name="toys", rows=lambda samples: {"key": samples.astype(np.uint64)})
    return Loop(
        name="toys", settings=train, workers=workers, stop=stop, engine=engine, step=ToyStep(engine), batches=_batches(),
        samples=FedSamples(split, "shards"), meter=ToyMeter(), length=RunLength(train, 2 * BATCH, 1000),
        progress=Progress(batch=2 * BATCH, total_steps=7), records=BestRecords(engine), validation=ToyValidation(engine))


@pytest.fixture
def stop() -> Iterator[StopRequest]:
    request = StopRequest()
    yield request
    request.release()


def test_when_it_logs_validates_and_saves(stop: StopRequest) -> None:
    loop = _loop(stop)
    assert loop.run() == 0
    assert loop.records.events == ["validate 2", "log 3", "validate 4", "save 4", "log 6", "validate 6", "log 7", "validate 7",
                                   "save 7", f"{DONE} 7"]
    assert loop.step.seen == [(step, micro) for step in range(7) for micro in range(2)]
    saved = loop.records.saved[0]
    assert (saved.step, saved.position, saved.meter["toys"]["rows"]) == (4, 4 * 32, 32), "step 4 is in no line yet"
    assert saved.digest == sum(range(3 * 32, 4 * 32))


def test_records_can_keep_the_weights_of_the_best_validation(stop: StopRequest) -> None:
    """A step of 0.4 moves the number past 1 and on, until Adam's momentum turns."""
    loop = _loop(stop, validate_every=1)
    loop.run()
    distance, weights = loop.records.best
    assert distance == abs(float(weights["number"]) - 1) < loop.validation.measure()["distance"]


def test_a_signal_ends_it_after_the_step(stop: StopRequest) -> None:
    loop = _loop(stop)
    forward = loop.step.forward

    def signalled(*inputs: Any) -> Distance:
        if inputs[3] == 2:
            signal.raise_signal(signal.SIGTERM)
        return forward(*inputs)

    loop.step.forward = signalled
    assert loop.run() == 128 + signal.SIGTERM
    # the signal comes within the third step, after the workers have told each other that nobody stops
    assert loop.records.events[-2:] == ["save 4", f"{STOPPED} 4"]


def test_a_training_that_is_done_does_nothing(stop: StopRequest) -> None:
    loop = _loop(stop)
    loop.progress.step, loop.progress.position, loop.saved_at = 7, 7 * 32, 7
    assert loop.run() == 0 and loop.records.events == [f"{DONE} 7"] and loop.step.seen == []


def test_too_many_holes_end_it(stop: StopRequest) -> None:
    loop = _loop(stop)
    loop.samples.max_holes = 0.001
    loop.batches = (SimpleNamespace(host=SimpleNamespace(samples=batch.host.samples, present=np.arange(BATCH) > 0))
                    for batch in _batches())
    with pytest.raises(RunLost, match="shards: 2 of 32 samples seen could not be read, more than data.max_holes=0.001 allows"):
        loop.run()
    assert loop.records.events == [f"{LOST} 1"]
