"""What a run reports: per-task losses and accuracies, speed, and the share of time spent waiting for data."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from kaleido_fast.model.losses import StepResult
from kaleido_fast.model.task_table import loss_weight
from kaleido_fast.training.workers.group import Workers

PARTS = ("sums", "correct", "rows", "watched", "times")  # times: what a watched number is averaged over


class TaskMeter:
    """Sums of losses and of right answers over micro-batches, kept on the device until they are read.

    The sums are float64: those of fp32 numbers of one size are exact in it, so neither the number of workers nor a stop
    and resume between two log lines changes what is logged.
    """

    def __init__(
        self, weights: Mapping[str, float] | None = None, totals: Mapping[str, Mapping[str, float]] | None = None
    ) -> None:
        """Begin with `totals` of before, from `totals`; give them to one worker only.

        Args:
            weights: of the tasks in the total, as `loss_weight` reads them.
        """
        self._weights = dict(weights or {})
        self._parts: dict[str, dict[str, Tensor | float]] = {part: dict((totals or {}).get(part, {})) for part in PARTS}

    def add(self, result: StepResult, num_rows: Mapping[str, float]) -> None:
        """Take one micro-batch's sums; `num_rows` are its own valid rows per task, from the host."""
        new: tuple[dict[str, Tensor | float], ...] = (
            {task: value.double() for task, value in result.loss_sums.items()},
            {task: value.double() for task, value in result.correct.items()},
            {task: float(num_rows[task]) for task in {**result.loss_sums, **result.correct}},
            {name: value.double() for name, value in result.watched.items()}, dict.fromkeys(result.watched, 1.0))
        if "mined" in num_rows:
            new[3]["mined"], new[4]["mined"] = float(num_rows["mined"]), float(num_rows["mismatched"])
        for part, values in zip(PARTS, new, strict=True):
            for task, value in values.items():
                self._parts[part][task] = self._parts[part].get(task, 0.0) + value

    def totals(self, workers: Workers) -> dict[str, dict[str, float]]:
        """The sums over all workers; waits for the device."""
        keys = [(part, task) for part in PARTS for task in sorted(self._parts[part])]
        if not keys:
            return {part: {} for part in PARTS}
        values = [self._parts[part][task] for part, task in keys]
        device = next((value.device for value in values if isinstance(value, Tensor)), "cpu")
        local_sums = torch.stack([torch.as_tensor(value, dtype=torch.float64, device=device) for value in values]).cpu().numpy()
        totals: dict[str, dict[str, float]] = {part: {} for part in PARTS}
        for (part, task), value in zip(keys, workers.total(local_sums), strict=True):
            totals[part][task] = float(value)
        return totals

    def read(self, workers: Workers) -> dict[str, Any]:
        """Means over all workers' rows since it was last read; waits for the device.

        Returns:
            {"losses": {"total": weighted sum, task: mean}, "accuracy": {task: share of right answers}}, and beside them what
            is watched (contrast's temperature), averaged over the micro-batches, and the share of mined negatives among
            mismatched texts.
        """
        totals = self.totals(workers)
        sums, correct, num_rows, watched, times = (totals[part] for part in PARTS)
        self._parts = {part: {} for part in PARTS}
        losses = {task: value / max(num_rows[task], 1.0) for task, value in sums.items()}
        accuracy = {task: value / max(num_rows[task], 1.0) for task, value in correct.items()}
        total = sum(loss_weight(self._weights, task) * loss for task, loss in losses.items())
        return {"losses": {"total": total} | losses, "accuracy": accuracy,
                **{name: value / max(times[name], 1.0) for name, value in watched.items()}}

    def headline(self, report: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
        """The losses that a progress bar shows."""
        losses = report["losses"]
        return {"loss": f"{losses['total']:.2f}", "itm": f"{losses.get('itm', 0):.3f}"}


class Stopwatch:
    """Wall time of the steps since the last log line, and how much of it was waiting for data."""

    def __init__(self) -> None:
        self._restart()

    def _restart(self) -> None:
        self._start, self._waited, self._excluded, self._samples = time.perf_counter(), 0.0, 0.0, 0

    def seen(self, samples: int) -> None:
        """Count samples of a finished step."""
        self._samples += samples

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """The time inside counts as waiting for data."""
        started = time.perf_counter()
        yield
        self._waited += time.perf_counter() - started

    @contextlib.contextmanager
    def excluded(self) -> Iterator[None]:
        """The time inside (validation, checkpoints) belongs to no step."""
        started = time.perf_counter()
        yield
        self._excluded += time.perf_counter() - started

    def read(self) -> dict[str, Any]:
        """Samples/s over all workers, the share of time waiting for data, seconds; starts anew."""
        seconds = time.perf_counter() - self._start - self._excluded
        report = {
            "samples_per_s": self._samples / seconds,
            "data_wait_share": self._waited / seconds,
            "seconds": seconds,
        }
        self._restart()
        return report
