"""Work over all shards, shared out over the workers of a run.

A shard that is finished is skipped, so that a run that was interrupted goes on by the same command; what it left half-written
is removed before any worker begins. The workers meet after every batch, so that progress, unreadable photographs and failures
are known to all: one that fails is missed at once, and none waits for long.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from kaleido_fast.data.shards.manifest import Manifest
from kaleido_fast.data.shards.split import REPAIR
from kaleido_fast.progress_bar import ProgressBar
from kaleido_fast.training.workers.group import Workers


@dataclass(frozen=True, slots=True)
class ShardWork:
    """A shard whose samples are to be gone through."""

    split: str
    name: str
    first: int  # its first sample's number in the split
    samples: int


class ShardJob(Protocol):
    """What is done with shards."""

    name: str  # at the beginning of the progress bar
    unit: str  # of what it counts: its samples, in the singular

    def is_finished(self, shard: ShardWork) -> bool:
        """Whether its whole result is there. Raises ValueError where there is one that was made otherwise."""

    def begin(self, todo: Sequence[ShardWork]) -> None:
        """Remove what an earlier run left half-written of these; called once, by the first worker, where there are any."""

    def work(self, shards: Sequence[ShardWork]) -> Iterator[int]:
        """Do this worker's shards batch by batch; gives how many samples each batch held."""


@dataclass(frozen=True, slots=True)
class HoleLimit:
    """How many photographs may be unreadable before the work is given up."""

    holes: dict[str, str]  # this worker's: name and reason; filled as it works
    share: float  # of the samples to be done, data.max_holes
    shards: str  # data.shards

    def check(self, holes: int, samples: int) -> None:
        """Raises ValueError where all workers together met more than the share of `samples`."""
        if holes > self.share * samples:
            examples = "".join(f"; {name}: {reason}" for name, reason in list(self.holes.items())[:1])
            raise ValueError(f"{self.shards}: {holes} photographs could not be read, more than data.max_holes={self.share:g} "
                             f"allows{examples}; {REPAIR}, or raise data.max_holes")


class SharedOut(NamedTuple):
    """What was done, by all workers together."""

    shards: list[ShardWork]  # those that had not been finished before
    seconds: float  # from when they were known


def all_shards(manifest: Manifest) -> list[ShardWork]:
    """The shards of all splits, in order."""
    shards = []
    for split, entry in manifest.splits.items():
        firsts = np.cumsum([0, *entry.samples]).tolist()
        shards += [ShardWork(split, *place) for place in zip(entry.shards, firsts[:-1], entry.samples, strict=True)]
    return shards


def share_out(
    workers: Workers, job: ShardJob, shards: Sequence[ShardWork], limit: HoleLimit | None = None
) -> SharedOut:
    """Do `job` with all `shards` that it has not finished; all workers call it and leave it together.

    Raises:
        ValueError: as the job does; more unreadable photographs than the limit allows.
    """
    with workers.together():
        todo = [shard for shard in shards if not job.is_finished(shard)] if workers.is_first else []
        if todo:
            job.begin(todo)
    todo, started = workers.from_first(todo), time.perf_counter()
    everything, left = num_samples(shards), num_samples(todo)
    batches = job.work(deal(todo, workers.count)[workers.rank])
    with ProgressBar(everything, job.name, job.unit, done=everything - left, shown=workers.is_first) as bar:
        working = True
        while working:
            done = next(batches, None)
            holes = len(limit.holes) if limit else 0
            samples, at_work, holes = workers.total(np.array([done or 0, done is not None, holes], np.float64))
            bar.update(int(samples))
            if limit is not None:
                limit.check(int(holes), left)
            working = at_work > 0
    return SharedOut(todo, time.perf_counter() - started)


def deal(shards: Sequence[ShardWork], workers: int) -> list[list[ShardWork]]:
    """Each worker's shards: the largest left goes to who has the fewest samples."""
    dealt: list[list[ShardWork]] = [[] for _ in range(workers)]
    for shard in sorted(shards, key=lambda shard: (-shard.samples, shard.name)):
        min(dealt, key=num_samples).append(shard)
    return dealt


def num_samples(shards: Sequence[ShardWork]) -> int:
    """How many samples they hold."""
    return sum(shard.samples for shard in shards)
