"""Which samples the batches of a loader hold: a worker's share of the stream, or given samples once."""

from collections.abc import Callable

import numpy as np

from kaleido_fast.data.batches.stream import sample_order
from kaleido_fast.kernels.philox import EVALUATION_EPOCH
from kaleido_fast.kernels.plan_rules import GROUP

SampleOrder = Callable[[int], tuple[np.ndarray, np.ndarray]]  # samples (-1: absent) and epochs of the i-th batch, (B,) int64
DRAWN_AT_ONCE = 1024  # stream positions; a draw costs its many small calls, hardly its numbers


class StreamOrder:
    """A worker's groups of the stream.

    Args:
        first_group: of the stream, the first that does not belong to the past.
        groups: of a batch.
    """

    def __init__(
        self, num_samples: int, seed: int, first_group: int, groups: int, worker: int, num_workers: int
    ) -> None:
        self._num_samples, self._seed, self._groups, self._num_workers = num_samples, seed, groups, num_workers
        self._first = first_group + (worker - first_group) % num_workers
        self._batches = max(1, DRAWN_AT_ONCE // (groups * GROUP))
        self._drawn: tuple[int, np.ndarray, np.ndarray] = (-1, np.empty(0), np.empty(0))  # number, samples, epochs

    def __call__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        part, place = divmod(number, self._batches)
        if part != self._drawn[0]:
            self._drawn = (part, *self._draw(part))
        _, samples, epochs = self._drawn
        batch = slice(place * self._groups * GROUP, (place + 1) * self._groups * GROUP)
        return samples[batch].copy(), epochs[batch].copy()

    def _draw(self, part: int) -> tuple[np.ndarray, np.ndarray]:
        count = self._groups * self._batches
        groups = self._first + (part * count + np.arange(count)) * self._num_workers
        return sample_order((groups[:, None] * GROUP + np.arange(GROUP)).ravel(), self._num_samples, self._seed)


class GivenOrder:
    """Given (batches, B) samples under the evaluation's epoch; absent ones past their end, since sources ask ahead."""

    def __init__(self, samples: np.ndarray) -> None:
        self._samples = samples

    def __call__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        if number < len(self._samples):
            samples = self._samples[number]
        else:
            samples = np.full(self._samples.shape[1], -1, np.int64)
        return samples, np.full(len(samples), EVALUATION_EPOCH, np.int64)
