"""What a run reports: per-task losses and accuracies, speed, and the share of time spent waiting for data."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kaleido_fast.model.losses import StepResult
from kaleido_fast.training.workers import Workers


class TaskMeter:
    """Sums of losses and of right answers over micro-batches, kept on the device until they are read."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._correct: dict[str, Tensor] = {}
        self._rows: dict[str, float] = {}

    def add(self, result: StepResult, rows: Mapping[str, float]) -> None:
        """Take one micro-batch's sums; `rows` are its own valid rows per task, from the host."""
        for task, loss_sum in result.loss_sums.items():
            self._sums[task] = self._sums[task] + loss_sum if task in self._sums else loss_sum
            self._rows[task] = self._rows.get(task, 0.0) + rows[task]
        for task, correct in result.correct.items():
            self._correct[task] = self._correct[task] + correct if task in self._correct else correct

    def read(self, weights: Mapping[str, float], workers: Workers) -> dict[str, dict[str, float]]:
        """Means over all workers' rows; waits for the device.

        Returns:
            {"losses": {"total": weighted sum, task: mean}, "accuracy": {task: share of right answers}}.
        """
        tasks, classified = list(self._sums), list(self._correct)
        values = torch.stack([*self._sums.values(), *self._correct.values()]).double().cpu().numpy()
        rows = np.array([self._rows[task] for task in tasks], np.float64)
        values, rows = np.split(workers.total(np.concatenate([values, rows])), [len(values)])
        count = dict(zip(tasks, rows.clip(min=1.0), strict=True))
        losses = {task: float(value / count[task]) for task, value in zip(tasks, values)}
        accuracy = {task: float(value / count[task]) for task, value in zip(classified, values[len(tasks) :], strict=True)}
        total = sum(weights.get(task, 1.0) * loss for task, loss in losses.items())
        return {"losses": {"total": total} | losses, "accuracy": accuracy}


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
