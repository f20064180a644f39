"""Batches of photographs: bytes by their offset in the shards, decoded, locked and resized by DALI.

DALI asks for batches ahead by itself: the host's work of a batch (rows, text, bytes) is done when it asks, the upload when
its squares are there.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from kaleido_fast.data.batches.assembler import Assembled, Assembler
from kaleido_fast.data.batches.batch import Batch
from kaleido_fast.data.batches.jpeg_batch import GREY, JpegBatch
from kaleido_fast.data.batches.patches import Pixels
from kaleido_fast.data.batches.source import BatchRequest
from kaleido_fast.data.batches.upload import Upload
from kaleido_fast.data.catalogue.photograph import GREY_JPEG_SIDE, grey_jpeg
from kaleido_fast.data.shards.split import BrokenSample, Split


class FromPhotographs:
    """The photographs of a split's own shards."""

    def __init__(self, split: Split) -> None:
        """Raises ValueError: the shards hold the authors' features and no photographs."""
        split.manifest.require_photographs(split.folder, "the loader")
        self.split = split

    def batches(self, request: BatchRequest) -> Iterator[Batch]:
        """As BatchSource has it."""
        return _PhotographBatches(self.split, request)

    def describe(self) -> dict[str, Any]:
        """The shards are described for themselves."""
        return {}


class _PhotographBatches:
    """An endless iterator."""

    def __init__(self, split: Split, request: BatchRequest) -> None:
        from kaleido_fast.data.batches.dali import SquareDecoder  # here: a run from a store opens this file, not DALI

        self._split, self._assembler, self._upload = split, Assembler(split, request), Upload(request.device)
        self._grey = grey_jpeg(GREY)
        settings = request.settings
        self._decoded = iter(SquareDecoder(
            self._make, request.micro_batch, settings.image_size, request.device, settings.decode_threads,
            settings.prefetch))

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        assembled, squares, broken = next(self._decoded)
        for index in broken:
            assembled.host.present[index] = False
            self._assembler.note(int(assembled.host.samples[index]), "cannot be decoded")
        return assembled.batch(self._upload(assembled.arrays()), Pixels(squares))

    def _make(self, number: int) -> tuple[Assembled, JpegBatch]:
        """The host's work on batch `number`."""
        data: list[bytes] = []

        def fetch(samples: np.ndarray, present: np.ndarray) -> None:
            data.extend(self._read(int(sample), index, present) for index, sample in enumerate(samples))

        assembled = self._assembler.assemble(number, fetch)
        rows, present = assembled.rows, assembled.host.present
        start = np.stack([rows["top"], rows["left"]], axis=1).astype(np.int32)
        side = np.stack([rows["side"], rows["side"]], axis=1).astype(np.int32)
        start[~present], side[~present] = 0, GREY_JPEG_SIDE
        return assembled, JpegBatch(data, start, side, rows["fill"])

    def _read(self, sample: int, index: int, present: np.ndarray) -> bytes:
        if not present[index]:
            return self._grey
        try:
            return self._split.read(sample)
        except (BrokenSample, OSError) as error:
            present[index] = False
            self._assembler.note(sample, str(error))
            return self._grey
