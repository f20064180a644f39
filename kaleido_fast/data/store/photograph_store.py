"""The feature store that `kaleido-fast encode` wrote of a split's photographs, one file a shard."""

from pathlib import Path

import numpy as np
from torch import Tensor

from kaleido_fast.data.settings import DataSettings
from kaleido_fast.data.shards.split import Split
from kaleido_fast.data.store.feature_store import ENDING, FeatureStore, StoreHeader
from kaleido_fast.data.store.photograph_rows import PhotographRows
from kaleido_fast.data.store.shard_stores import ShardStores

ENCODE = "run 'kaleido-fast encode' with the same settings"
OWN_FOLDER = "features"  # inside the shards, where data.store says nothing


def store_folder(settings: DataSettings) -> Path:
    """Where the store of `data.shards` lies."""
    return Path(settings.store) if settings.store else Path(settings.shards) / OWN_FOLDER


def store_file(folder: Path, shard: str) -> Path:
    """The store of one shard."""
    return folder / f"{shard}{ENDING}"


class PhotographStore(ShardStores):
    """The opened stores of a split's shards; what they were made with is compared elsewhere (training/stores/recipe.py).

    Args:
        rows: what each photograph must have.
        pin: keep them in memory.
    """

    def __init__(self, split: Split, folder: Path, rows: PhotographRows, pin: bool = False) -> None:
        """Raises ValueError: a shard has no store, or one that is cut short, of another kind or of other samples."""
        split.manifest.require_photographs(split.folder, f"data.store={folder}")
        super().__init__(split, [_open(folder, shard) for shard in split.shards])
        self.folder, self.rows = folder, rows
        counts = split.manifest.splits[split.name].samples
        for store, samples in zip(self.stores, counts, strict=True):
            header, first = store.header, self.header
            if header.rows != rows.num_rows:
                raise ValueError(f"{store.path}: rows a sample {header.rows}, expected {rows.num_rows} for kaleido.tasks and "
                                 f"kaleido.grids; set them as they were, or give another data.store and {ENCODE}")
            for name, actual, expected in (
                ("samples", header.samples, samples), ("dtype", header.dtype, first.dtype),
                ("F", header.num_features, first.num_features), ("fingerprint", header.fingerprint, first.fingerprint),
            ):
                if actual != expected:
                    raise ValueError(f"{store.path}: {name} {actual}, expected {expected} as the shard and the store's other "
                                     f"files have; remove it and {ENCODE}")
        if pin:
            for store in self.stores:
                store.pin()

    @property
    def header(self) -> StoreHeader:
        """What all have in common."""
        return self.stores[0].header

    def fetch(self, samples: np.ndarray, present: np.ndarray, out: Tensor, readers: int = 1) -> dict[int, str]:
        """Copy the blocks of `samples` (B,) where they are `present` into `out` (B, R, row_bytes), zeros elsewhere.

        Args:
            readers: as `copy` takes it.
        Returns:
            the samples that have none, and why; they are not `present` any more.
        """
        wanted = np.where(present, samples, -1)
        missing = present & ~self.copy(wanted, out.numpy().reshape(len(samples), -1), readers)
        present &= ~missing
        return {int(sample): self._why(int(sample)) for sample in samples[missing]}

    def _why(self, sample: int) -> str:
        store, block = self.locate(sample)
        if store.is_hole(block):
            return "its photograph could not be read when it was encoded"
        return f"its features in {store.path.name} do not match their CRC32; remove that file and {ENCODE}"


def _open(folder: Path, shard: str) -> FeatureStore:
    path = store_file(folder, shard)
    if not path.is_file():
        raise ValueError(f"{path}: no store of this shard there; {ENCODE}, or set model.features=computed")
    return FeatureStore(path)
