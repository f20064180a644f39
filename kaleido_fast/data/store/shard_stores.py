"""The feature stores of a split's shards, read by the number of a sample.

A batch of base is 155 MB: one thread copies it from the page cache, and in the first epoch compares it with its CRC32s, just
as fast as a GPU trains on it. So for a GPU several threads take a part each; neither a copy nor a CRC32 holds Python's lock.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from kaleido_fast.data.shards.split import Split
from kaleido_fast.data.store.feature_store import FeatureStore
from kaleido_fast.data.store.row_format import StoreDtype

MOST_READERS = 4  # threads of a worker: what more could read, no step takes
READER = "store-reader"  # what such a thread is called
READER_BYTES = 4 << 20  # a further thread for as many: it copies them in a millisecond, ten times what its beginning takes


def readers_for(device: torch.device) -> int:
    """How many threads may read a batch for a device. On a CPU one: the step has work for all other cores."""
    return min(MOST_READERS, len(os.sched_getaffinity(0))) if device.type == "cuda" else 1


class ShardStores:
    """One opened store a shard, all of the same rows and dtype."""

    def __init__(self, split: Split, stores: Sequence[FeatureStore]) -> None:
        self.split, self.stores = split, list(stores)

    @property
    def block_bytes(self) -> int:
        """Bytes of a sample's rows."""
        return self.stores[0].header.block_bytes

    @property
    def dtype(self) -> StoreDtype:
        """Of all rows."""
        return self.stores[0].header.dtype

    def copy(self, samples: np.ndarray, out: np.ndarray, readers: int = 1) -> np.ndarray:
        """Copy the packed rows of `samples` (n,), -1 for none, into `out` (n, block_bytes) uint8.

        Args:
            readers: threads at most, from `readers_for`; what comes out is the same.
        Returns:
            (n,) bool, False where there is none or a block is not what was written; its row of `out` is zero then.
        """
        whole = np.zeros(len(samples), bool)

        def copy_some(places: np.ndarray) -> None:
            for place in places:
                store, block = self.locate(int(samples[place]))
                whole[place] = store.copy(block, out[place])

        places = np.argsort(samples, kind="stable")[np.count_nonzero(samples < 0) :]  # as they lie
        readers = min(readers, len(places) * self.block_bytes // READER_BYTES)
        if readers <= 1:
            copy_some(places)
        else:  # threads of this batch alone: none is left when a run ends or its batches are dropped
            with ThreadPoolExecutor(readers, thread_name_prefix=READER) as pool:
                list(pool.map(copy_some, np.array_split(places, readers)))
        out[~whole] = 0
        return whole

    def locate(self, sample: int) -> tuple[FeatureStore, int]:
        """The store of a sample, and the number of its block there."""
        shard = int(np.searchsorted(self.split.starts, sample, side="right")) - 1
        return self.stores[shard], int(sample - self.split.starts[shard])
