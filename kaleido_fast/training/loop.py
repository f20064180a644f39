"""The loop of every training: fetch, step, log, validate, save, stop. Pre-training and the captioner run on it.

What is trained is handed over as parts: a step (what one micro-batch does), batches, a meter (what is measured), a length, a
state that goes on elsewhere (`Progress`), records (where lines and checkpoints go) and, where there is one, a validation.
Nothing waits for the device but what is logged, validated and saved.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from kaleido_fast.data.batches.batch import Batch
from kaleido_fast.progress_bar import ProgressBar
from kaleido_fast.training.engine import Engine
from kaleido_fast.training.fed_samples import FedSamples
from kaleido_fast.training.length import RunLength
from kaleido_fast.training.lost import RunLost
from kaleido_fast.training.progress import Progress
from kaleido_fast.training.schedule import fitting_warmup, learning_rate
from kaleido_fast.training.settings import TrainSettings
from kaleido_fast.training.skipped_steps import SkippedSteps
from kaleido_fast.training.telemetry import Stopwatch
from kaleido_fast.training.workers.group import Workers
from kaleido_fast.training.workers.stop import StopRequest

NAMED = 8  # samples in a message
DONE, STOPPED, LOST = "done", "stopped", "lost"  # how a training ends
SIGTERM = 15


class MicroBatchResult(Protocol):
    """What a micro-batch came to, on the device."""

    @property
    def loss(self) -> Tensor:
        """() its part of the optimizer step's loss."""


class MicroBatchStep(Protocol):
    """What one micro-batch does, under the engine."""

    def count(self, batch: Batch) -> Mapping[str, float]:
        """Rows of the micro-batch by what they count for, known to the host; the names are always the same."""

    def forward(
        self, batch: Batch, num_rows: Mapping[str, float], num_step_rows: Mapping[str, float], step: int, micro: int
    ) -> MicroBatchResult:
        """The losses of a micro-batch.

        Args:
            num_rows: from `count`.
            num_step_rows: the same summed over the optimizer step's micro-batches and workers.
            step, micro: optimizer steps done, number of the micro-batch in this one: what dropout is keyed by.
        """


class Meter(Protocol):
    """Sums over micro-batches, kept on the device until they are read."""

    def add(self, result: Any, num_rows: Mapping[str, float]) -> None:
        """Take one micro-batch's."""

    def totals(self, workers: Workers) -> dict[str, dict[str, float]]:
        """The sums over all workers, for a checkpoint; waits for the device."""

    def read(self, workers: Workers) -> dict[str, Any]:
        """The report since it was last read; waits for the device."""

    def headline(self, report: Mapping[str, Any]) -> dict[str, str]:
        """What the progress bar shows of a report."""


class Validation(Protocol):
    """What is measured on other products between steps; all workers call it."""

    def measure(self) -> dict[str, Any]:
        """The report of the weights as they are now."""


class Mining(Protocol):
    """Negatives found by what is trained, again and again; all workers call it."""

    def due(self, position: int, samples: int) -> int | None:
        """The epoch that they must be mined for before a step of so many samples at stream position `position`; None: none."""

    def mine(self, epoch: int) -> dict[str, Any]:
        """Mine them by the weights as they are now; how that went."""


class Records(Protocol):
    """Where a training is written down; all workers call it."""

    def write(self, line: dict[str, Any]) -> None:
        """Take a line of what was logged or validated."""

    def save(self, progress: Progress) -> None:
        """Write a checkpoint from which the training goes on."""

    def end(self, progress: Progress, how: str, lost: RunLost | None = None) -> None:
        """Note how the training ended: DONE, STOPPED, or LOST and why."""


@dataclass(slots=True)
class Loop:
    """One worker's part of a training; `run` is the whole of it."""

    name: str  # shown with the progress bar
    settings: TrainSettings
    workers: Workers
    stop: StopRequest
    engine: Engine
    step: MicroBatchStep
    batches: Iterator[Batch]
    samples: FedSamples
    meter: Meter
    length: RunLength
    progress: Progress
    records: Records
    validation: Validation | None = None
    mining: Mining | None = None
    chosen_by: Callable[[Mapping[str, Any]], float] | None = None  # of a validation's report: the checkpoint with most is kept
    open_batches: Callable[[int], Iterator[Batch]] | None = None  # from a stream position on; needed where there is mining
    saved_at: int | None = None  # the step of the newest checkpoint
    watch: Stopwatch = field(default_factory=Stopwatch)
    skipped: SkippedSteps = field(init=False)

    def __post_init__(self) -> None:
        self.skipped = SkippedSteps(self.settings.max_skipped_steps, self.settings.log_every)

    def run(self) -> int:
        """Step until the length is reached or a stop is asked for, then save; the exit code: 0, or 128 + the signal's number.

        Raises:
            RunLost: what is trained cannot go on; the newest checkpoint is the last good one.
        """
        settings, progress, stopped = self.settings, self.progress, False
        try:
            with self.bar() as bar:
                while not (stopped or progress.is_done):
                    with self.watch.excluded():
                        self.mine(bar)
                    stopped = self.turn(self.batches)
                    self.plan_length(bar)
                    bar.update()
                    if self.due(settings.log_every):
                        self.log(bar)
                    with self.watch.excluded():
                        is_best = self.validation is not None and self.due(settings.validate_every) and self.validate()
                        if is_best or self.due(settings.checkpoint_every):
                            self.save()
            if self.saved_at != progress.step:  # it was asked to stop
                self.save()
        except RunLost as lost:
            self.records.end(progress, LOST, lost)
            raise
        stopped = stopped or bool(self.stop.signal)
        self.records.end(progress, DONE if progress.is_done else STOPPED)
        return 128 + (self.stop.signal or SIGTERM) if stopped else 0

    def mine(self, bar: ProgressBar) -> None:
        """Where it is due, mine negatives; what was drawn ahead by the old ones is dropped."""
        if self.mining is None or self.open_batches is None:
            return
        epoch = self.mining.due(self.progress.position, self.samples_per_step)
        if epoch is not None:
            self.batches = iter(())  # what makes them ends here
            report = self.mining.mine(epoch)
            self.records.write({"step": self.progress.step + 1, "mining": report})  # the first step under them
            self.batches = self.open_batches(self.progress.position)
            bar.note(mined=f"{report['products']} products in {report['seconds']:.0f} s")

    def turn(self, batches: Iterator[Batch]) -> bool:
        """Fetch, then one optimizer step; returns whether any worker was asked to stop.

        Raises:
            RunLost: too many samples could not be read.
        """
        with self.watch.waiting():
            fetched = [next(batches) for _ in range(self.settings.accumulation)]
        stopped = self._step(fetched)
        self.samples.require_readable(self.progress)
        return stopped

    def _step(self, batches: list[Batch]) -> bool:
        """One optimizer step; returns whether any worker was asked to stop."""
        counted = [self.step.count(batch) for batch in batches]
        names = list(counted[0])
        counts = [sum(num_rows[name] for num_rows in counted) for name in names]
        digest = sum(self.samples.digest(batch) for batch in batches)
        holes = sum(int((~batch.host.present).sum()) for batch in batches)
        *totals, stops, digest, holes = self.workers.total(
            np.array([*counts, bool(self.stop.signal), digest, holes], np.float64))
        num_step_rows, rate = dict(zip(names, totals, strict=True)), self._learning_rate()
        for micro, (batch, num_rows) in enumerate(zip(batches, counted, strict=True)):
            result = self.step.forward(batch, num_rows, num_step_rows, self.progress.step, micro)
            self.engine.backward(result.loss)
            self.engine.step(rate)
            self.meter.add(result, num_rows)
        self.progress.advance(self.samples_per_step, int(digest), int(holes))
        self.skipped.add(self.progress.step, self.engine.skipped, self.samples.numbers(batches))
        self.watch.seen(self.samples_per_step)
        return stops > 0

    def _learning_rate(self) -> float:
        settings, total = self.settings, self.progress.total_steps
        warmup = settings.warmup_steps if total is None else fitting_warmup(settings.warmup_steps, total)
        return learning_rate(self.progress.schedule_step, total, base=settings.learning_rate, warmup_steps=warmup,
                             schedule=settings.schedule)

    @property
    def samples_per_step(self) -> int:
        return self.settings.samples_per_step(self.workers.count)

    def plan_length(self, bar: ProgressBar) -> None:
        """Once a run in minutes has measured its speed, set its number of steps."""
        estimate = self.length.tick(self.progress.step)
        if estimate is not None:
            self.progress.set_last_step(int(self.workers.from_first(estimate)), self.samples_per_step)
            self.length.total = self.progress.total_steps
            bar.expect(self.progress.last_step(self.samples_per_step))

    def due(self, every: int) -> bool:
        """Whether what is done each so many steps, and at the end, is due now."""
        return self.progress.step % every == 0 or self.progress.is_done

    def validate(self) -> bool:
        """Measure the validation and write it down; whether these weights are the best so far, which the progress then says."""
        assert self.validation is not None
        report, progress = self.validation.measure(), self.progress
        self.records.write({"step": progress.step, "validation": report})
        if self.chosen_by is None:
            return False
        value = self.chosen_by(report)
        if progress.chosen and not value > progress.chosen["value"]:
            return False
        progress.chosen = {"step": progress.step, "value": value}
        return True

    def log(self, bar: ProgressBar) -> None:
        """Read the meter (this waits for the device) and write one line; raises RunLost as `require_finite_steps`."""
        report = self.meter.read(self.workers)
        line = {"step": self.progress.step, "samples": self.progress.position, "digest": self.progress.take_digest(), **report,
                "learning_rate": self.engine.optimizer.param_groups[0]["lr"], "grad_norm": self.engine.grad_norm(),
                **self.watch.read()}
        self.records.write(line)
        bar.note(**self.meter.headline(report), sps=f"{line['samples_per_s']:.0f}")
        self.require_finite_steps()

    def require_finite_steps(self) -> None:
        """Raise RunLost (on all workers alike) where too many steps in a row were left out; waits for the device."""
        lost = self.skipped.first_lost()
        if lost is None:
            return
        (first, samples), limit = lost, self.settings.max_skipped_steps
        fed = {f"worker {rank}": numbers for rank, numbers in enumerate(self.workers.from_all(samples.tolist()))}
        named = ", ".join(map(str, fed["worker 0"][:NAMED])) + ", …" * (len(samples) > NAMED)
        kept = "there is no checkpoint" if self.saved_at is None else f"the checkpoint of step {self.saved_at} stays"
        raise RunLost(
            f"train.max_skipped_steps={limit}: in steps {first} to {first + limit - 1} nothing moved, since their gradients "
            f"are not finite; step {first} was fed samples {named} of split '{self.samples.split.name}'; {kept}; a "
            "resumed run meets the same steps again: raise train.max_skipped_steps to pass them, or start anew with a lower "
            "learning rate or without these samples", {"first_step": first, "samples": fed})

    def save(self) -> None:
        """Write a checkpoint, with what the meter has summed since the last line; lost weights are not written over good ones.

        Raises:
            RunLost: too many steps in a row were left out, or weights are not finite.
        """
        self.require_finite_steps()
        self.records.save(replace(self.progress, meter=self.meter.totals(self.workers)))
        self.saved_at = self.progress.step

    def bar(self) -> ProgressBar:
        """The first worker's progress bar."""
        return ProgressBar(self.progress.last_step(self.samples_per_step), self.name, "step", done=self.progress.step,
                           shown=self.workers.is_first)
