"""Work spread over the machine's cores: results in order, a bounded number under way."""

import collections
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

AHEAD = 4  # tasks under way a process: memory does not grow with their number


def spread(work: Callable[[Any], Any], items: Sequence[Any], processes: int) -> Iterator[Any]:
    """`work` of each item, in order; in this process where there is but one process or item.

    Raises:
        ValueError: a worker process was killed, most likely for want of memory.
    """
    processes = min(processes, len(items))
    if processes <= 1:
        yield from map(work, items)
        return
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        try:
            yield from _bounded_map(pool, AHEAD * processes, work, items)
        except BrokenProcessPool:
            raise ValueError("a worker process was killed, most likely because the machine's memory was used up; free "
                             "memory and start again") from None


def _bounded_map(
    pool: Executor, ahead: int, work: Callable[[Any], Any], items: Sequence[Any]
) -> Iterator[Any]:
    waiting: collections.deque[Any] = collections.deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
