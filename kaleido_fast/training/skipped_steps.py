"""Steps that were left out since their gradient was not finite: so many in a row, and the training is lost.

Nothing waits for it. Whether a step was left out is a number on the device (from stage 1 on DeepSpeed has read it already),
and the count is kept there too. Both are read where the loop waits anyway: when it logs or saves. The host keeps which samples
the last steps were fed, as far back as a row that is met at the next log can begin.

    row  <- (row + 1) * skipped
    lost <- number of the step where row reached the limit for the first time, else 0
"""

from collections import deque

import numpy as np
from torch import Tensor


class SkippedSteps:
    """Counts them.

    Args:
        limit: steps in a row that make a training lost.
        log_every: steps between two readings, at most.
    """

    def __init__(self, limit: int, log_every: int) -> None:
        self._limit = limit
        self._row: Tensor | int = 0
        self._lost: Tensor | int = 0
        self._fed: deque[tuple[int, np.ndarray]] = deque(maxlen=log_every + limit)

    def add(self, step: int, skipped: Tensor | int, samples: np.ndarray) -> None:
        """Take a step.

        Args:
            step: its number, from 1.
            skipped: () 1 where it was left out, else 0.
            samples: (n,) int64, this worker's.
        """
        self._fed.append((step, samples))
        self._row = (self._row + 1) * skipped
        self._lost = self._lost + step * ((self._row == self._limit) * (self._lost == 0))

    def first_lost(self) -> tuple[int, np.ndarray] | None:
        """The first step of a row that has reached the limit, and this worker's samples of it; waits for the device."""
        last = int(self._lost)
        if not last:
            return None
        first = last - self._limit + 1
        return first, dict(self._fed)[first]
