"""The store that `kaleido-fast encode` wrote of a split's photographs, and batches from it: no photograph is read.

The host's work (table rows, text, blocks of the store) is done by a thread, some batches ahead of the step.
"""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kaleido_fast.data.batches.batch import Batch
from kaleido_fast.data.batches.host_part import HostPart, HostParts
from kaleido_fast.data.batches.upload import Upload
from kaleido_fast.data.settings import DataSettings
from kaleido_fast.data.shards.split import Split
from kaleido_fast.data.store.feature_store import ENDING, FeatureStore, StoreHeader
from kaleido_fast.data.store.photograph_rows import EncodedRows, num_stored_rows
from kaleido_fast.data.store.shard_stores import ShardStores

ENCODE = "run 'kaleido-fast encode' with the same settings"
OWN_FOLDER = "features"  # inside the shards, where data.store says nothing


def store_folder(settings: DataSettings) -> Path:
    """Where the store of `data.shards` lies."""
    return Path(settings.store) if settings.store else Path(settings.shards) / OWN_FOLDER


def store_file(folder: Path, shard: str) -> Path:
    """The store of one shard."""
    return folder / f"{shard}{ENDING}"


class EncodedPhotographs(ShardStores):
    """The opened stores of a split's shards; what they were made with is compared elsewhere (training/stores/recipe.py).

    Args:
        pin: keep them in memory.
    """

    def __init__(self, split: Split, folder: Path, grids: tuple[int, ...], pin: bool = False) -> None:
        """Raises ValueError: a shard has no store, or one that is cut short, of another kind or of other samples."""
        split.manifest.require_photographs(split.folder, f"data.store={folder}")
        super().__init__(split, [_open(folder, shard) for shard in split.shards])
        self.folder, self.grids = folder, grids
        counts = split.manifest.splits[split.name].samples
        for store, samples in zip(self.stores, counts, strict=True):
            header, first = store.header, self.header
            for name, found, expected in (
                ("samples", header.samples, samples), ("rows a sample", header.rows, num_stored_rows(grids)),
                ("dtype", header.dtype, first.dtype), ("F", header.num_features, first.num_features),
                ("fingerprint", header.fingerprint, first.fingerprint),
            ):
                if found != expected:
                    raise ValueError(f"{store.path}: {name} {found}, expected {expected} as the shard and the store's other "
                                     f"files have; remove it and {ENCODE}")
        if pin:
            for store in self.stores:
                store.pin()

    @property
    def header(self) -> StoreHeader:
        """What all have in common."""
        return self.stores[0].header

    def fetch(self, samples: np.ndarray, present: np.ndarray, out: Tensor) -> dict[int, str]:
        """Copy the blocks of `samples` (B,) where they are `present` into `out` (B, R, row_bytes), zeros elsewhere.

        Returns:
            the samples that have none, and why; they are not `present` any more.
        """
        wanted = np.where(present, samples, -1)
        missing = present & ~self.copy(wanted, out.numpy().reshape(len(samples), -1))
        present &= ~missing
        return {int(sample): self._why(int(sample)) for sample in samples[missing]}

    def _why(self, sample: int) -> str:
        store, block = self.locate(sample)
        if store.is_hole(block):
            return "its photograph could not be read when it was encoded"
        return f"its features in {store.path.name} do not match their CRC32; remove that file and {ENCODE}"


class EncodedBatches:
    """An endless iterator of batches in an order, with stored rows instead of photographs."""

    def __init__(
        self, store: EncodedPhotographs, parts: HostParts, settings: DataSettings, micro_batch: int, device: torch.device
    ) -> None:
        self._store, self._parts, self._prefetch = store, parts, settings.prefetch
        self._micro_batch, self._upload = micro_batch, Upload(device)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="encoded-photographs")
        self._ahead: deque[Future[tuple[HostPart, Tensor]]] = deque()
        self._number = 0

    @property
    def holes(self) -> dict[str, str]:
        return self._parts.holes

    def __next__(self) -> Batch:
        while len(self._ahead) <= self._prefetch:
            self._ahead.append(self._thread.submit(self._make, self._number))
            self._number += 1
        part, packed = self._ahead.popleft().result()
        rows = EncodedRows(self._upload.send(packed), self._store.header.dtype, self._store.grids)
        return part.batch(self._upload, encoded=rows)

    def _make(self, number: int) -> tuple[HostPart, Tensor]:
        rows = self._store.header.rows
        packed = self._upload.empty(self._micro_batch, rows, self._store.block_bytes // rows)

        def fetch(samples: np.ndarray, present: np.ndarray) -> None:
            for sample, reason in self._store.fetch(samples, present, packed).items():
                self._parts.note(sample, reason)

        return self._parts.make(number, fetch), packed


def _open(folder: Path, shard: str) -> FeatureStore:
    path = store_file(folder, shard)
    if not path.is_file():
        raise ValueError(f"{path}: no store of this shard there; {ENCODE}, or set model.features=computed")
    return FeatureStore(path)
