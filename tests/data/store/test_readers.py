"""Several threads read a batch of a store as one does: the same bytes, the same holes, the same words about them."""

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from kaleido_fast.data.store import shard_stores
from kaleido_fast.data.store.feature_store import HEADER_BYTES, FeatureStore, StoreWriter
from kaleido_fast.data.store.shard_stores import MOST_READERS, READER, READER_BYTES, ShardStores, readers_for

SAMPLES = (7, 9, 5)  # of each shard
ROWS, WIDTH = 3, 11
DAMAGED, HOLE = 4, 12  # samples


def open_stores(folder: Path) -> ShardStores:
    """Three shards, one block damaged, one of a photograph that could not be read."""
    generator, number = np.random.default_rng(0), 0
    for shard, samples in enumerate(SAMPLES):
        writer = StoreWriter(folder / f"{shard}.features", "fp32", ROWS, WIDTH, {})
        for _ in range(samples):
            writer.add_hole() if number == HOLE else writer.add(generator.normal(size=(ROWS, WIDTH)).astype(np.float32))
            number += 1
        writer.close()
    with (folder / "0.features").open("r+b") as file:
        file.seek(HEADER_BYTES + DAMAGED * ROWS * WIDTH * 4 + 5)
        file.write(b"\xff\x00\xff")
    stores = [FeatureStore(folder / f"{shard}.features") for shard in range(len(SAMPLES))]
    split: Any = SimpleNamespace(starts=np.concatenate([[0], np.cumsum(SAMPLES)]))
    return ShardStores(split, stores)


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of the threads that read blocks; a block is enough for a thread."""
    names: set[str] = set()
    copy: Callable[..., bool] = FeatureStore.copy

    def watched(self: FeatureStore, place: int, out: np.ndarray) -> bool:
        names.add(threading.current_thread().name)
        return copy(self, place, out)

    monkeypatch.setattr(FeatureStore, "copy", watched)
    monkeypatch.setattr(shard_stores, "READER_BYTES", ROWS * WIDTH * 4)
    return names


@pytest.mark.parametrize("readers", [2, 3, 4])
def test_the_bytes_and_the_holes_are_those_of_one_thread(tmp_path: Path, threads: set[str], readers: int) -> None:
    samples = np.random.default_rng(1).permutation(np.concatenate([np.arange(sum(SAMPLES)), [-1, -1, 3, DAMAGED]]))
    one, several = open_stores(tmp_path), open_stores(tmp_path)
    for _ in range(2):  # compared with their CRC32s, then not any more
        wanted, given = (np.full((len(samples), one.block_bytes), 9, np.uint8) for _ in range(2))
        whole = one.copy(samples, wanted)
        assert threads == {"MainThread"}
        threads.clear()
        assert np.array_equal(several.copy(samples, given, readers), whole) and np.array_equal(given, wanted)
        assert threads and all(name.startswith(READER) for name in threads)
        threads.clear()
    assert set(samples[~whole]) == {-1, DAMAGED, HOLE} and not given[~whole].any() and given[whole].any()


def test_every_thread_has_a_part_and_ends_with_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All four are under way at once: each waits for the others before it reads its first block."""
    monkeypatch.setattr(shard_stores, "READER_BYTES", ROWS * WIDTH * 4)
    together, copy = threading.Barrier(4), FeatureStore.copy
    begun = threading.local()

    def watched(self: FeatureStore, place: int, out: np.ndarray) -> bool:
        if not getattr(begun, "here", False):
            begun.here = True
            together.wait(timeout=60)
        return copy(self, place, out)

    monkeypatch.setattr(FeatureStore, "copy", watched)
    stores, samples = open_stores(tmp_path), np.arange(sum(SAMPLES))
    stores.copy(samples, np.empty((len(samples), stores.block_bytes), np.uint8), readers=4)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(READER)]


def test_a_small_batch_begins_no_thread(tmp_path: Path, threads: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_stores, "READER_BYTES", READER_BYTES)
    stores, samples = open_stores(tmp_path), np.arange(sum(SAMPLES))
    stores.copy(samples, np.empty((len(samples), stores.block_bytes), np.uint8), readers=4)
    assert threads == {"MainThread"}


def test_an_error_in_a_thread_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_stores, "READER_BYTES", ROWS * WIDTH * 4)
    stores, samples = open_stores(tmp_path), np.arange(sum(SAMPLES))

    def broken(self: FeatureStore, place: int, out: np.ndarray) -> bool:
        raise OSError("no such block")

    monkeypatch.setattr(FeatureStore, "copy", broken)
    with pytest.raises(OSError, match="no such block"):
        stores.copy(samples, np.empty((len(samples), stores.block_bytes), np.uint8), readers=3)


def test_several_read_for_a_gpu_and_one_for_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(16)))
    assert readers_for(torch.device("cuda", 3)) == MOST_READERS == 4
    assert readers_for(torch.device("cpu")) == 1
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 5})
    assert readers_for(torch.device("cuda", 3)) == 2
