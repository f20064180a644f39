"""The stream's order: a permutation an epoch, by position alone, well mixed, in sequential blocks."""

import numpy as np
import pytest

from kaleido_fast.data.batches.stream import BLOCK, WINDOW, sample_order
from kaleido_fast.kernels.plan_rules import GROUP


@pytest.mark.parametrize("n", [1, 2, 7, 15, 16, 63, 64, 65, 127, 1000, 2047, 2048, 2049, 4097, 6007])
def test_every_epoch_is_another_permutation(n: int) -> None:
    samples, epochs = sample_order(np.arange(3 * n), n, seed=11)
    assert (epochs == np.repeat([0, 1, 2], n)).all()
    orders = samples.reshape(3, n)
    assert (np.sort(orders, axis=1) == np.arange(n)).all()
    if n > 7:
        assert len({order.tobytes() for order in orders}) == 3
        assert not np.array_equal(orders[0], sample_order(np.arange(n), n, seed=12)[0])


def test_a_position_alone_gives_what_it_gives_among_others() -> None:
    whole, _ = sample_order(np.arange(5000), 1777, seed=3)
    pick = np.array([4999, 0, 1776, 1777, 3554])
    assert (sample_order(pick, 1777, seed=3)[0] == whole[pick]).all()


def test_neighbours_in_storage_rarely_share_a_group() -> None:
    n = 64_000
    groups = np.sort(sample_order(np.arange(n), n, seed=5)[0].reshape(-1, GROUP), axis=1)
    assert (np.diff(groups, axis=1) < BLOCK).mean() < 0.35  # 32 blocks a window: a shared block is chance, not the rule
    assert (np.diff(groups, axis=1) == 1).mean() < 0.02


def test_a_window_reads_few_runs() -> None:
    n = 200_000
    window = np.sort(sample_order(np.arange(WINDOW), n, seed=5)[0])
    runs = 1 + (np.diff(window) != 1).sum()
    assert runs <= 2 * WINDOW // BLOCK
