"""How long a run is: steps, epochs, or minutes that become steps after the first 20."""

import math
import time

from kaleido_fast.training.progress import Progress
from kaleido_fast.training.settings import MEASURED_STEPS, TrainSettings

WARM_STEPS = 5  # of the measured ones: first calls allocate and compile, they are not counted


class RunLength:
    """The number of optimizer steps of a run; None until it is known.

    A run in minutes measures steps 6-20 and divides what is left of its time by their mean, leaving room for validation and
    mining; the number is saved with the checkpoint, so that a resumed run keeps its schedule. Steps and epochs count as they
    are given, also where a resumed run was given others.
    """

    def __init__(
        self, train: TrainSettings, samples_per_step: int, num_samples: int, total: int | None = None,
        mined_an_epoch: float = 0.0,
    ) -> None:
        """Args:
            mined_an_epoch: products that are embedded for mining, divided by the epochs between.
        """
        self._train = train
        self._samples_per_step = samples_per_step
        self._mining_share = mined_an_epoch / num_samples / 6  # a step's joint and single sequences, forward and backward
        self.total = _known_total(train, samples_per_step, num_samples) or total
        self._start = time.perf_counter()
        self._warm = self._start

    def tick(self, steps_done: int) -> int | None:
        """Call after each step; returns this process's estimate of the total when it is due, else None."""
        if self.total is not None:
            return None
        now = time.perf_counter()
        if steps_done == WARM_STEPS:
            self._warm = now
        if steps_done < MEASURED_STEPS:
            return None
        beside = self._validation_share() + self._mining_share
        seconds_a_step = (now - self._warm) / (MEASURED_STEPS - WARM_STEPS) * (1 + beside)
        left = self._train.minutes * 60 - (now - self._start)
        return MEASURED_STEPS + max(0, int(left / seconds_a_step))

    def _validation_share(self) -> float:
        """Time of validation a training step: forward alone is about a third of a step's work."""
        train = self._train
        return train.validation_samples / 3 / (train.validate_every * self._samples_per_step)


def _known_total(train: TrainSettings, samples_per_step: int, num_samples: int) -> int | None:
    if train.steps:
        return train.steps
    if train.epochs:
        return math.ceil(train.epochs * num_samples / samples_per_step)
    return None


def require_ahead(train: TrainSettings, progress: Progress, num_samples: int) -> None:
    """Refuse (ValueError) to resume a run with a length that it has passed."""
    total = _known_total(train, progress.batch, num_samples)
    if total is None or progress.total_steps is None or total >= progress.total_steps:
        return
    if total * progress.batch < progress.position:
        given = f"train.steps={train.steps}" if train.steps else f"train.epochs={train.epochs:g}"
        raise ValueError(f"{given}: that is {total * progress.batch:,} samples, and the run has seen {progress.position:,}; "
                         "give a greater length, or another run.out")


def require_length(train: TrainSettings) -> None:
    """Refuse settings that say nothing of the run's length (ValueError)."""
    if not (train.steps or train.epochs or train.minutes):
        raise ValueError("give the length of the run: train.steps, train.epochs or train.minutes")
