"""The prefetcher: batches in order, made ahead in a thread; what a maker raises arrives where the batch is asked for."""

import threading

import pytest

from kaleido_fast.data.batches.prefetch import Prefetcher


class Maker:
    """Batch n is the number n; some cannot be made."""

    def __init__(self, broken: int = -1) -> None:
        self.broken, self.made, self.threads = broken, list[int](), set[str]()
        self.enough = threading.Semaphore(0)

    def make(self, number: int) -> int:
        self.threads.add(threading.current_thread().name)
        self.made.append(number)
        self.enough.release()
        if number == self.broken:
            raise OSError(f"{number} is broken")
        return number

    def to_device(self, work: int) -> int:
        return 10 * work


def test_batches_come_in_order_and_are_made_ahead_by_one_thread() -> None:
    maker = Maker()
    batches = Prefetcher(maker, ahead=2)
    assert not maker.made  # nothing before it is asked for
    assert [next(batches) for _ in range(5)] == [0, 10, 20, 30, 40]
    for _ in range(7):  # five asked for, two ahead
        assert maker.enough.acquire(timeout=10)
    assert maker.made == list(range(7))
    assert len(maker.threads) == 1 and threading.current_thread().name not in maker.threads


def test_an_error_is_raised_by_the_batch_it_belongs_to() -> None:
    batches = Prefetcher(Maker(broken=1), ahead=3)
    assert next(batches) == 0
    with pytest.raises(OSError, match="1 is broken"):
        next(batches)
    assert next(batches) == 20
