"""DeepSpeed waits for the device nowhere in a step but where its sharding needs it.

On a CPU there is nothing to wait for, so DeepSpeed is told that its work is asynchronous, as on a GPU, and its streams and
events are ones that write down who waits for them.
"""

import traceback
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kaleido_fast.alignment.captioner_training import CaptionerStep
from kaleido_fast.training.engine import Engine
from kaleido_fast.training.loop import Loop
from kaleido_fast.training.pretrain import pretrain
from kaleido_fast.training.workers.group import start_workers
from tests.alignment.test_captioner_training import config_of, finish
from tests.small import small_config
from tests.training import engine_cases as cases

LATER = range(2, 6)  # steps; the first makes gradients and moments
# Where a step waits for one of DeepSpeed's streams, by stage: stage 3 gathers weights and reduces gradients on streams of its
# own, whose results the step reads, and looks how far they are before it takes more memory. Nothing waits for the whole device.
OF_SHARDING: dict[int, set[str]] = {0: set(), 1: set(), 2: set(), 3: {
    "partition_parameters.py: wait", "partitioned_param_coordinator.py: _fetch_sub_module_impl",
    "stage3.py: __reduce_and_partition_ipg_grads", "stage3.py: independent_gradient_partition_epilogue"}}


class Waits:
    """Who waited for what, by step."""

    def __init__(self) -> None:
        self.step = 0  # none is under way
        self.of_device: list[str] = []
        self.of_streams: set[str] = set()

    def place(self) -> str:
        """The function of DeepSpeed's or ours that asked."""
        frames = [frame for frame in traceback.extract_stack() if "deepspeed" in frame.filename or "kaleido" in frame.filename]
        asking = next(frame for frame in reversed(frames) if frame.filename != __file__)
        return f"{Path(asking.filename).name}: {asking.name}"

    def note_device(self, *_: Any) -> None:
        if self.step in LATER:
            self.of_device.append(f"step {self.step}, {self.place()}")

    def note_stream(self, *_: Any) -> None:
        if self.step in LATER:
            self.of_streams.add(self.place())


def asynchronous(waits: Waits, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tell DeepSpeed that its device works by itself."""
    start_workers("cpu", 60)
    cases.toy_engine(0, 1).destroy()  # imports DeepSpeed as the engine does
    from deepspeed.accelerator import get_accelerator

    class Stream:
        """A stream, or an event on it, without work."""

        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def synchronize(self) -> None:
            waits.note_stream()

        def nothing(self, *_: Any) -> None:
            pass

        record = wait_stream = wait_event = nothing

        def query(self) -> bool:
            return False

    accelerator, stream = type(get_accelerator()), Stream()
    for name, value in {
        "synchronize": waits.note_device, "is_synchronized_device": lambda self: False, "use_host_timers": lambda self: True,
        "Stream": property(lambda self: Stream), "Event": property(lambda self: Stream),
        "current_stream": lambda self, *_: stream, "default_stream": lambda self, *_: stream,
    }.items():
        monkeypatch.setattr(accelerator, name, value)
    monkeypatch.setattr(Tensor, "record_stream", lambda self, stream: None)
    step = Loop._step

    def watched(self: Loop, batches: Any) -> bool:
        waits.step = self.progress.step + 1
        try:
            return step(self, batches)
        finally:
            waits.step = 0

    monkeypatch.setattr(Loop, "_step", watched)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Waits:
    noted = Waits()
    asynchronous(noted, monkeypatch)
    return noted


@pytest.mark.parametrize("stage", cases.STAGES)
def test_no_step_of_pretraining_waits_for_the_device(tiny_shards: Path, tmp_path: Path, waits: Waits, stage: int) -> None:
    assert pretrain(small_config(tiny_shards, tmp_path / "run", "train.steps=5", f"train.zero_stage={stage}")) == 0
    assert waits.of_device == []
    assert waits.of_streams <= OF_SHARDING[stage] and bool(waits.of_streams) == (stage == 3)


@pytest.mark.parametrize("stage", cases.STAGES)
def test_no_step_of_the_captioner_waits_for_the_device(tiny_shards: Path, tmp_path: Path, waits: Waits, stage: int) -> None:
    finish(config_of(tiny_shards, tmp_path / "run", "align.steps=5", f"train.zero_stage={stage}"))
    assert waits.of_device == []
    assert waits.of_streams <= OF_SHARDING[stage] and bool(waits.of_streams) == (stage == 3)


def test_a_step_that_waits_is_seen(tiny_shards: Path, tmp_path: Path, waits: Waits, monkeypatch: pytest.MonkeyPatch) -> None:
    from deepspeed.accelerator import get_accelerator

    step = Engine.step
    monkeypatch.setattr(Engine, "step", lambda self, rate: (get_accelerator().synchronize(), step(self, rate))[1])
    assert pretrain(small_config(tiny_shards, tmp_path / "run", "train.steps=5")) == 0
    assert len(waits.of_device) == len(LATER) and "step 2, " in waits.of_device[0]


def test_the_captioner_copies_nothing_to_the_device_in_its_step(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy from memory that is not page-locked waits until it is done."""
    forward = CaptionerStep.forward

    def refused(*_: Any) -> Tensor:
        raise AssertionError("the step made a tensor of the host's values")

    def watched(self: CaptionerStep, *inputs: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "from_numpy", refused)
            return forward(self, *inputs)

    monkeypatch.setattr(CaptionerStep, "forward", watched)
    finish(config_of(tiny_shards, tmp_path / "run", "align.steps=2"))


