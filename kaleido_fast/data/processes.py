"""Work spread over the machine's cores: results in order, a bounded number under way."""

import collections
import functools
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

AHEAD = 4  # tasks under way a process: memory does not grow with their number

Work = Callable[[Any], Any]  # what is done with an item


def spread(work: Work, items: Sequence[Any], processes: int) -> Iterator[Any]:
    """`work` of each item, in order; in this process where there is but one process or item.

    Raises:
        ValueError: a worker process was killed, most likely for want of memory.
    """
    yield from spread_made(functools.partial(_as_it_is, work), items, processes)


def spread_made(make_work: Callable[[], Work], items: Sequence[Any], processes: int) -> Iterator[Any]:
    """As `spread`, by the work that `make_work` makes once in each process: what it opens serves all items there."""
    processes = min(processes, len(items))
    if processes <= 1:
        yield from map(make_work(), items)
        return
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _Worker.begin, (make_work,)) as pool:
        try:
            yield from _bounded_map(pool, AHEAD * processes, items)
        except BrokenProcessPool:
            raise ValueError("a worker process was killed, most likely because the machine's memory was used up; free "
                             "memory and start again") from None


class _Worker:
    """A worker process: its work, made when the first item comes, so that an error in the making is that item's."""

    make_work: Callable[[], Work]
    work: Work | None = None

    @classmethod
    def begin(cls, make_work: Callable[[], Work]) -> None:
        cls.make_work = make_work

    @classmethod
    def do(cls, item: Any) -> Any:
        if cls.work is None:
            cls.work = cls.make_work()
        return cls.work(item)


def _as_it_is(work: Work) -> Work:
    return work


def _bounded_map(pool: Executor, ahead: int, items: Sequence[Any]) -> Iterator[Any]:
    waiting: collections.deque[Any] = collections.deque()
    for item in items:
        waiting.append(pool.submit(_Worker.do, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
