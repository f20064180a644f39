"""The feature stores of a split's shards, read by the number of a sample."""

from collections.abc import Sequence

import numpy as np

from kaleido_fast.data.shards.split import Split
from kaleido_fast.data.store.feature_store import FeatureStore
from kaleido_fast.data.store.row_format import StoreDtype


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

    def copy(self, samples: np.ndarray, out: np.ndarray) -> np.ndarray:
        """Copy the packed rows of `samples` (n,), -1 for none, into `out` (n, block_bytes) uint8.

        Returns:
            (n,) bool, False where there is none or a block is not what was written; its row of `out` is zero then.
        """
        whole = np.zeros(len(samples), bool)
        for place in np.argsort(samples, kind="stable")[np.count_nonzero(samples < 0) :]:  # as they lie
            store, block = self.locate(int(samples[place]))
            whole[place] = store.copy(block, out[place])
        out[~whole] = 0
        return whole

    def locate(self, sample: int) -> tuple[FeatureStore, int]:
        """The store of a sample, and the number of its block there."""
        shard = int(np.searchsorted(self.split.starts, sample, side="right")) - 1
        return self.stores[shard], int(sample - self.split.starts[shard])
