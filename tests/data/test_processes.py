"""Work spread over processes: in order, what a process makes is made once there, an error comes out as it is."""

import functools
import os
from collections.abc import Callable

import pytest

from kaleido_fast.data.processes import spread, spread_made


class Counter:
    """Says which item of its process an item is, and which process that is."""

    def __init__(self, start: int) -> None:
        self.count = start

    def __call__(self, item: int) -> tuple[int, int, int]:
        self.count += 1
        return item, self.count, os.getpid()


def _refuse() -> Callable[[int], int]:
    raise ValueError("cannot be opened")


def _square(item: int) -> int:
    return item * item


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_order(processes: int) -> None:
    assert list(spread(_square, range(30), processes)) == [item * item for item in range(30)]


@pytest.mark.parametrize("processes", [1, 2])
def test_work_is_made_once_a_process(processes: int) -> None:
    answers = list(spread_made(functools.partial(Counter, 100), range(30), processes))
    assert [item for item, _, _ in answers] == list(range(30))
    workers = {worker for _, _, worker in answers}
    assert (workers == {os.getpid()}) is (processes == 1) and len(workers) <= processes
    for worker in workers:
        counts = [count for _, count, who in answers if who == worker]
        assert counts == list(range(101, 101 + len(counts)))


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_in_the_making_comes_out_as_it_is(processes: int) -> None:
    with pytest.raises(ValueError, match="cannot be opened"):
        list(spread_made(_refuse, range(3), processes))


def test_nothing_to_do_makes_nothing() -> None:
    assert list(spread(_square, [], 4)) == []
