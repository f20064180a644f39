"""The order of samples: stream position p is place p mod n of epoch p div n (SPEC 1, DESIGN 'Determinism').

An epoch's order is a pure function of (seed, epoch), evaluated by position, without a table of n numbers. Storage is
rotated by a drawn offset and cut into blocks; the blocks are permuted; places are permuted inside windows of 32 blocks. So
a window reads 32 runs of 64 neighbours, and a group of 16 comes from all of them.
"""

import numpy as np
import torch

from kaleido_fast.kernels.philox import philox

BLOCK = 64  # samples that lie together in storage and are read near each other
WINDOW = 32 * BLOCK  # places among which samples are mixed
ORDER_STREAM = 15  # Philox stream of the order; the plan's are 0-3
ROUNDS = 6
MASK32 = 0xFFFFFFFF


def sample_order(positions: np.ndarray, num_samples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Which sample stands at each stream position.

    Args:
        positions: (n,) int64 from 0.
    Returns:
        samples (n,) int64 and epochs (n,) int64.
    """
    epochs, places = np.divmod(positions.astype(np.int64), num_samples)
    samples = np.empty_like(places)
    for epoch in np.unique(epochs):
        in_epoch = epochs == epoch
        samples[in_epoch] = _Epoch(num_samples, seed, int(epoch)).samples(places[in_epoch])
    return samples, epochs


class _Epoch:
    """One epoch's permutation of n samples."""

    def __init__(self, num_samples: int, seed: int, epoch: int) -> None:
        self.n, self.seed, self.epoch = num_samples, seed, epoch
        self.full_blocks = num_samples // BLOCK  # the rest, shorter than a block, keeps its place at the end
        self.shift = int(self._words(np.zeros(1, np.int64), 0)[0]) % num_samples

    def samples(self, places: np.ndarray) -> np.ndarray:
        mixed = self._mix_windows(places)
        block, inside = np.divmod(mixed, BLOCK)
        whole = block < self.full_blocks
        if whole.any():
            block[whole] = self._permute(block[whole], self.full_blocks, purpose=1)
        return (block * BLOCK + inside + self.shift) % self.n

    def _mix_windows(self, places: np.ndarray) -> np.ndarray:
        """Permute places inside their window; the last window takes the rest, so that none is tiny."""
        count = max(1, self.n // WINDOW)
        window = np.minimum(places // WINDOW, count - 1)
        mixed = np.empty_like(places)
        for number in np.unique(window):
            in_window, start = window == number, number * WINDOW
            size = self.n - start if number == count - 1 else WINDOW
            mixed[in_window] = start + self._permute(places[in_window] - start, int(size), purpose=2 + int(number))
        return mixed

    def _permute(self, values: np.ndarray, size: int, purpose: int) -> np.ndarray:
        """A pseudo-random permutation of range(size): a Feistel network on the next even number of bits, walked along
        its cycle until it lands inside (fewer than four turns on average)."""
        half = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
        values, outside = values.copy(), np.ones(len(values), bool)
        while outside.any():
            values[outside] = self._feistel(values[outside], half, purpose)
            outside = values >= size
        return values

    def _feistel(self, values: np.ndarray, half: int, purpose: int) -> np.ndarray:
        mask = (1 << half) - 1
        left, right = values >> half, values & mask
        for turn in range(ROUNDS):
            left, right = right, left ^ (self._words(right, (purpose << 3) + turn + 1) & mask)
        return (left << half) | right

    def _words(self, values: np.ndarray, purpose: int) -> np.ndarray:
        words = philox(self.seed & MASK32, (self.seed >> 32) & MASK32, torch.from_numpy(values & MASK32),
                       self.epoch * 16 + ORDER_STREAM, purpose & MASK32, torch.from_numpy(values >> 32))
        return words[0].numpy()
