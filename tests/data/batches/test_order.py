"""Which samples a loader's batches hold: workers share the stream, given samples come once."""

import numpy as np
import pytest

from kaleido_fast.data.batches.order import DRAWN_AT_ONCE, GivenOrder, StreamOrder
from kaleido_fast.data.batches.stream import sample_order
from kaleido_fast.kernels.philox import EVALUATION_EPOCH
from kaleido_fast.kernels.plan_rules import GROUP


@pytest.mark.parametrize("num_workers", [1, 2, 3])
@pytest.mark.parametrize("start", [0, 96, 480])
def test_workers_share_the_stream(num_workers: int, start: int) -> None:
    n, micro = 1000, 2
    whole = sample_order(np.arange(start, start + 96 * num_workers), n, seed=1)[0].reshape(-1, GROUP)
    orders = [StreamOrder(n, 1, start // GROUP, micro, worker, num_workers) for worker in range(num_workers)]
    seen = np.concatenate([order(i)[0].reshape(-1, GROUP) for i in range(3) for order in orders])
    assert sorted(map(tuple, seen)) == sorted(map(tuple, whole))


def test_batches_drawn_together_are_those_drawn_alone_in_any_order() -> None:
    """A batch may be written to by who reads it; the next asked for is whole again."""
    n, groups = 1000, 2
    order = StreamOrder(n, 1, 0, groups, worker=0, num_workers=1)
    far = DRAWN_AT_ONCE // (groups * GROUP) + 3  # in the next draw
    for number in (0, 0, 1, far, 0):
        first = number * groups * GROUP
        samples, epochs = order(number)
        expected = sample_order(np.arange(first, first + groups * GROUP), n, seed=1)
        assert np.array_equal(samples, expected[0]) and np.array_equal(epochs, expected[1])
        samples[:], epochs[:] = -1, -1


def test_given_samples_come_once_under_the_evaluations_epoch() -> None:
    order = GivenOrder(np.arange(32).reshape(2, 16))
    assert order(1)[0].tolist() == list(range(16, 32))
    samples, epochs = order(2)
    assert samples.shape == (16,) and (samples == -1).all() and (epochs == EVALUATION_EPOCH).all()
