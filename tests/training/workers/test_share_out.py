"""Shards shared out over workers: what is skipped, what begins, who does what, and when all stop."""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kaleido_fast.data.shards.manifest import Manifest, SplitEntry
from kaleido_fast.training.workers.group import Workers
from kaleido_fast.training.workers.share_out import HoleLimit, ShardWork, SharedOut, all_shards, deal, share_out

SHARDS = [ShardWork("train", f"train-{number:06d}", 10 * number, samples) for number, samples in enumerate([9, 4, 4, 1])]


class Files:
    """A job that writes a file a shard, two samples a batch."""

    name, unit = "files", "sample"

    def __init__(self, folder: Path, breaks_at: str = "") -> None:
        self.folder, self.breaks_at, self.begun, self.done = folder, breaks_at, list[list[str]](), list[str]()
        self.holes: dict[str, str] = {}

    def is_finished(self, shard: ShardWork) -> bool:
        return (self.folder / shard.name).exists()

    def begin(self, todo: Sequence[ShardWork]) -> None:
        self.begun.append([shard.name for shard in todo])
        for shard in todo:
            (self.folder / f".{shard.name}").unlink(missing_ok=True)

    def work(self, shards: Sequence[ShardWork]) -> Iterator[int]:
        for shard in shards:
            beside = self.folder / f".{shard.name}"
            assert not beside.exists()
            beside.write_text("half")
            for start in range(0, shard.samples, 2):
                if shard.name == self.breaks_at and start:
                    raise OSError(f"{shard.name}: no room")
                self.holes[f"{shard.name} {start}"] = "torn"
                yield min(2, shard.samples - start)
            beside.rename(self.folder / shard.name)
            self.done.append(shard.name)


class Threads:
    """Workers that are threads; they meet where processes do."""

    def __init__(self, rank: int, barrier: threading.Barrier, table: list) -> None:
        self.rank, self.count, self.is_first, self._barrier, self._table = rank, barrier.parties, rank == 0, barrier, table

    def _all(self, value: object) -> list:
        self._table[self.rank] = value
        self._barrier.wait(30)
        values = list(self._table)
        self._barrier.wait(30)
        return values

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        yield
        self._all(None)

    def from_first(self, value: object) -> object:
        return self._all(value)[0]

    def total(self, values: np.ndarray) -> np.ndarray:
        return np.sum(self._all(values), axis=0)


def test_finished_shards_are_skipped_and_half_written_ones_go_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train-000000").write_text("whole")
    (tmp_path / ".train-000003").write_text("what a kill leaves")
    job = Files(tmp_path)
    done = share_out(Workers(0, 1), job, SHARDS)
    assert job.begun == [["train-000001", "train-000002", "train-000003"]] and done.shards == SHARDS[1:]
    assert job.done == ["train-000001", "train-000002", "train-000003"] and done.seconds > 0
    assert sorted(file.name for file in tmp_path.iterdir()) == [shard.name for shard in SHARDS]
    assert (tmp_path / "train-000000").read_text() == "whole"
    assert "files: 100% 18/18 [" in capsys.readouterr().err
    again = Files(tmp_path)
    assert share_out(Workers(0, 1), again, SHARDS).shards == [] and again.begun == again.done == []


def test_workers_share_them_and_leave_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    barrier, table, jobs, done = threading.Barrier(2), [None, None], [Files(tmp_path), Files(tmp_path)], list[SharedOut]()

    def work(rank: int) -> None:
        done.append(share_out(Threads(rank, barrier, table), jobs[rank], SHARDS))  # type: ignore[arg-type]

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [job.done for job in jobs] == [["train-000000"], ["train-000001", "train-000002", "train-000003"]]
    assert len(jobs[0].begun) == 1 and not jobs[1].begun, "by the first worker alone"
    assert done[0].shards == done[1].shards == SHARDS
    assert capsys.readouterr().err.count("18/18 [") == 1, "one bar, of all of them"


def test_a_job_that_breaks_is_not_hidden_and_goes_on_by_the_same_command(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="train-000001: no room"):
        share_out(Workers(0, 1), Files(tmp_path, breaks_at="train-000001"), SHARDS)
    assert sorted(file.name for file in tmp_path.iterdir()) == [".train-000001", "train-000000"]
    job = Files(tmp_path)
    assert share_out(Workers(0, 1), job, SHARDS).shards == SHARDS[1:]
    assert sorted(file.name for file in tmp_path.iterdir()) == [shard.name for shard in SHARDS]


def test_too_many_unreadable_photographs_stop_it(tmp_path: Path) -> None:
    """Held against the samples that are still to be done; a hole a batch is 10 of 18."""
    job = Files(tmp_path)
    share_out(Workers(0, 1), job, SHARDS, HoleLimit(job.holes, 10 / 18, "shards"))
    other = Files(tmp_path / "other")
    other.folder.mkdir()
    with pytest.raises(ValueError, match="shards: 10 photographs could not be read, more than data.max_holes=0.5 allows; "
                                         "train-000000 0: torn; .*, or raise data.max_holes"):
        share_out(Workers(0, 1), other, SHARDS, HoleLimit(other.holes, 0.5, "shards"))


def test_shards_are_dealt_evenly() -> None:
    shards = [ShardWork("train", f"train-{number:06d}", 0, samples) for number, samples in enumerate([9, 9, 4, 4, 4, 1, 1])]
    dealt = deal(shards, 3)
    assert sorted(shard.name for own in dealt for shard in own) == [shard.name for shard in shards]
    assert [sum(shard.samples for shard in own) for own in dealt] == [10, 10, 12]
    assert deal([], 2) == [[], []]


def test_the_shards_of_all_splits(tiny_shards: Path) -> None:
    splits = {"train": SplitEntry(("a", "b"), (3, 4), 2), "test": SplitEntry(("c",), (5,), 1)}
    assert all_shards(replace(Manifest.read(tiny_shards), splits=splits)) == [
        ShardWork("train", "a", 0, 3), ShardWork("train", "b", 3, 4), ShardWork("test", "c", 0, 5)]
