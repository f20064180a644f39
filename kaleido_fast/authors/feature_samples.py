"""The stored features of a split, with their locations and plans: memory-mapped, read by a sample's place."""

from pathlib import Path

import numpy as np
import torch

from kaleido_fast.authors.plan_file import plan_dtype
from kaleido_fast.data.shards.manifest import Manifest, ShardFeatures
from kaleido_fast.data.shards.split import REPAIR, Split
from kaleido_fast.data.store.feature_store import ENDING, FeatureStore
from kaleido_fast.data.store.row_format import unpack_rows
from kaleido_fast.data.store.shard_stores import ShardStores
from kaleido_fast.kernels.geometry import num_positions
from kaleido_fast.options import PREPARE_FEATURE_FILES, OptionError


class FeatureSamples(ShardStores):
    """Opens the stores of all shards of a split; nothing is read yet."""

    def __init__(self, split: Split) -> None:
        """Raises ValueError: the split has photographs, or a file is missing, cut short or of another kind."""
        features = split.manifest.features
        if features is None:
            raise OptionError(f"{split.folder}: these shards hold photographs and no stored features; set "
                              "model.features=computed, or give shards that ", PREPARE_FEATURE_FILES, " made")
        counts = list(zip(split.shards, split.manifest.splits[split.name].samples, strict=True))
        super().__init__(split, [open_shard_features(split.folder, shard, samples, features) for shard, samples in counts])
        self.kind = features
        self._locations = [split.open_table(f"{shard}.locations.npy", np.dtype("<i4"), samples, (num_positions(), 5))
                           for shard, samples in counts]
        self._plans = [split.open_table(f"{shard}.plan.npy", plan_dtype(), samples) for shard, samples in counts] \
            if features.has_plan else []

    def features(self, samples: np.ndarray) -> np.ndarray:
        """(n, rows, F) float32, as the file has them.

        Raises:
            ValueError: a sample's block is not what was written.
        """
        packed = np.empty((len(samples), self.block_bytes), np.uint8)
        broken = samples[~self.copy(samples, packed)]
        if len(broken):
            raise ValueError(f"{self.split.folder}: the features of {self.split.name} sample {broken[0]} do not match their "
                             f"CRC32; {REPAIR}")
        rows = torch.from_numpy(packed.reshape(len(samples), self.kind.rows, -1))
        return unpack_rows(rows, self.dtype).numpy()

    def locations(self, samples: np.ndarray) -> np.ndarray:
        """(n, K, 5) int32."""
        return self.split.gather(self._locations, samples)

    def plans(self, samples: np.ndarray) -> np.ndarray:
        """(n,) `plan_dtype`.

        Raises:
            ValueError: the files that the shards were made of have no plan.
        """
        require_plan(self.split.folder, self.split.manifest)
        return self.split.gather(self._plans, samples)


def require_plan(folder: Path, manifest: Manifest) -> None:
    """Refuse (ValueError) features of files without masks and labels: they can be read and scored, not trained on."""
    if manifest.features is not None and not manifest.features.has_plan:
        raise ValueError(f"{folder}: these shards hold the features of the authors' {manifest.features.layout} files, which "
                         "have no masks and labels to pre-train on; give shards made of their pre-training files (25 columns)")


def require_width(split: Split, max_tokens: int) -> None:
    """Refuse (ValueError) another text width than the files': a cut text would lose masked tokens."""
    if max_tokens != split.manifest.token_width + 2:
        raise ValueError(f"data.max_tokens={max_tokens}: the masked texts of {split.folder} are "
                         f"{split.manifest.token_width + 2} wide; set data.max_tokens to that")


def open_shard_features(folder: Path, shard: str, samples: int, features: ShardFeatures) -> FeatureStore:
    """A shard's store. Raises ValueError: missing, cut short, or not what the manifest says."""
    store = FeatureStore(folder / f"{shard}{ENDING}")
    header = store.header
    actual = (header.samples, header.dtype, header.rows, header.num_features, header.fingerprint)
    expected = (samples, features.dtype, features.rows, features.num_features, features.fingerprint)
    for name, value, wanted in zip(("samples", "dtype", "rows", "F", "fingerprint"), actual, expected, strict=True):
        if value != wanted:
            raise ValueError(f"{store.path}: {name} {value}, expected {wanted} by the manifest; {REPAIR}")
    return store
