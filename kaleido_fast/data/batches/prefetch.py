"""Batches whose host work is done by a thread, some batches ahead of the step."""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, Protocol, TypeVar

from kaleido_fast.data.batches.batch import Batch

Work = TypeVar("Work")


class BatchMaker(Protocol[Work]):
    """Makes a batch in two parts."""

    def make(self, number: int) -> Work:
        """The host's work on batch `number`: rows of the table, texts, bytes. Asked for in order, in a thread of its own."""

    def to_device(self, work: Work) -> Batch:
        """The batch, when the step asks for it."""


class Prefetcher(Generic[Work]):
    """An endless iterator of a maker's batches, `ahead` of them made before they are asked for."""

    def __init__(self, maker: BatchMaker[Work], ahead: int) -> None:
        self._maker, self._ahead = maker, ahead
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._works: deque[Future[Work]] = deque()
        self._number = 0

    def __iter__(self) -> "Prefetcher[Work]":
        return self

    def __next__(self) -> Batch:
        while len(self._works) <= self._ahead:
            self._works.append(self._thread.submit(self._maker.make, self._number))
            self._number += 1
        return self._maker.to_device(self._works.popleft().result())
