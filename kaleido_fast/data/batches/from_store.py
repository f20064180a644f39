"""Batches of what a feature store has of the photographs: none of them is read."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import Tensor

from kaleido_fast.data.batches.assembler import Assembled, Assembler
from kaleido_fast.data.batches.batch import Batch
from kaleido_fast.data.batches.patches import StoreRows
from kaleido_fast.data.batches.prefetch import Prefetcher
from kaleido_fast.data.batches.source import BatchRequest
from kaleido_fast.data.batches.upload import Upload
from kaleido_fast.data.shards.split import Split
from kaleido_fast.data.store.photograph_store import PhotographStore
from kaleido_fast.data.store.shard_stores import readers_for


class FromStore:
    """The opened store of a split's photographs."""

    def __init__(self, store: PhotographStore) -> None:
        self.store = store

    @property
    def split(self) -> Split:
        return self.store.split

    def batches(self, request: BatchRequest) -> Iterator[Batch]:
        """As BatchSource has it."""
        return Prefetcher(_StoreBatches(self.store, request), request.settings.prefetch)

    def describe(self) -> dict[str, Any]:
        """Folder and header of the store."""
        return {"store": {"folder": str(self.store.folder), **dataclasses.asdict(self.store.header)}}


class _StoreBatches:
    """Makes them: table rows, texts and blocks of the store by the host, one upload each."""

    def __init__(self, store: PhotographStore, request: BatchRequest) -> None:
        self._store, self._assembler = store, Assembler(store.split, request)
        self._micro_batch, self._upload = request.micro_batch, Upload(request.device)
        self._readers = readers_for(request.device)

    def make(self, number: int) -> tuple[Assembled, Tensor]:
        """All but the patches, and (B, R, row_bytes) uint8 packed rows."""
        rows = self._store.header.rows
        packed = self._upload.empty(self._micro_batch, rows, self._store.block_bytes // rows)

        def fetch(samples: np.ndarray, present: np.ndarray) -> None:
            for sample, reason in self._store.fetch(samples, present, packed, self._readers).items():
                self._assembler.note(sample, reason)

        return self._assembler.assemble(number, fetch), packed

    def to_device(self, work: tuple[Assembled, Tensor]) -> Batch:
        assembled, packed = work
        patches = StoreRows(self._upload.send(packed), self._store.dtype, self._store.rows)
        return assembled.batch(self._upload(assembled.arrays()), patches)
