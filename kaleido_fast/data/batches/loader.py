"""The loader: groups of the stream, text drawn by the host, bytes by offset, squares from DALI (DESIGN).

Host work (rows, text, bytes) of a batch is done when DALI asks for it, some batches ahead of the step. In the same order
come batches from a store of the photographs (from_store.py) and of the authors' features (authors/feature_batches.py).
"""

from collections.abc import Iterator

import numpy as np
import torch

from kaleido_fast.authors.feature_batches import StoredBatches
from kaleido_fast.data.batches.batch import Batch
from kaleido_fast.data.batches.dali import GREY, JpegBatch, SquareDecoder
from kaleido_fast.data.batches.from_store import EncodedBatches, EncodedPhotographs
from kaleido_fast.data.batches.host_part import HostPart, HostParts
from kaleido_fast.data.batches.stream import sample_order
from kaleido_fast.data.batches.upload import Upload
from kaleido_fast.data.catalogue.photograph import grey_jpeg
from kaleido_fast.data.settings import DataSettings
from kaleido_fast.data.shards.split import BrokenSample, Split
from kaleido_fast.kernels.philox import EVALUATION_EPOCH
from kaleido_fast.kernels.plan_rules import GROUP

DRAWN_AT_ONCE = 1024  # stream positions; a draw costs its many small calls, hardly its numbers


class Loader:
    """Micro-batches of whole groups, without end; one worker's share of the stream.

    Args:
        position: global stream position to begin at, a multiple of 16; groups before it belong to the past.
        worker, num_workers: group g goes to worker g mod num_workers.
        holes: takes the samples that could not be read, and why.
        store: where the split's features are read instead of its photographs.
        draw_text: whether mismatched texts are drawn; otherwise every text is the sample's own.
    Raises:
        ValueError: sizes or positions that are not whole groups.
    """

    def __init__(
        self, split: Split, settings: DataSettings, *, seed: int, micro_batch: int, device: torch.device,
        worker: int = 0, num_workers: int = 1, position: int = 0, holes: dict[str, str] | None = None,
        store: EncodedPhotographs | None = None, draw_text: bool = True,
    ) -> None:
        if micro_batch < GROUP or micro_batch % GROUP or position % GROUP:
            raise ValueError(f"loader: micro_batch={micro_batch} and position={position} must be multiples of {GROUP}")
        self._order = _StreamOrder(split.num_samples, seed, position // GROUP, micro_batch // GROUP, worker, num_workers)
        self._batches = _batches(
            split, settings, seed if draw_text else None, self._order, micro_batch, device, holes, store)

    @property
    def holes(self) -> dict[str, str]:
        """Samples that could not be read, and why."""
        return self._batches.holes

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        return next(self._batches)


def evaluation_batches(
    split: Split, samples: np.ndarray, settings: DataSettings, *, seed: int, micro_batch: int, device: torch.device,
    draw_text: bool, holes: dict[str, str] | None = None, store: EncodedPhotographs | None = None,
) -> Iterator[Batch]:
    """The given samples once, in whole groups; what is missing from the last is absent (present False).

    Args:
        draw_text: whether mismatched texts are drawn (epoch 2^28 - 1); otherwise every text is the sample's own.
        holes: takes the samples that could not be read, and why.
        store: where the split's features are read instead of its photographs.
    """
    count = -(-len(samples) // micro_batch)
    padded = np.full(count * micro_batch, -1, np.int64)
    padded[: len(samples)] = samples
    order = _FixedOrder(padded.reshape(count, micro_batch))
    batches = _batches(split, settings, seed if draw_text else None, order, micro_batch, device, holes, store)
    for _ in range(count):
        yield next(batches)


def _batches(
    split: Split, settings: DataSettings, seed: int | None, order: "_StreamOrder | _FixedOrder", micro_batch: int,
    device: torch.device, holes: dict[str, str] | None, store: EncodedPhotographs | None,
) -> "_Batches | EncodedBatches | StoredBatches":
    """Of photographs, of what a store has of them, or of the authors' features, whose text and plan are fixed."""
    if split.manifest.features is not None:
        return StoredBatches(split, settings, order, micro_batch, device, holes)
    parts = HostParts(split, settings, seed, order, holes)
    if store is not None:
        assert store.split.name == split.name
        return EncodedBatches(store, parts, settings, micro_batch, device)
    return _Batches(split, parts, settings, micro_batch, device)


class _StreamOrder:
    """Samples and epochs of a worker's i-th micro-batch."""

    def __init__(
        self, num_samples: int, seed: int, first_group: int, groups: int, worker: int, num_workers: int
    ) -> None:
        self._num_samples, self._seed, self._groups, self._num_workers = num_samples, seed, groups, num_workers
        self._first = first_group + (worker - first_group) % num_workers
        self._batches = max(1, DRAWN_AT_ONCE // (groups * GROUP))
        self._drawn: tuple[int, np.ndarray, np.ndarray] = (-1, np.empty(0), np.empty(0))  # number, samples, epochs

    def __call__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        part, place = divmod(number, self._batches)
        if part != self._drawn[0]:
            self._drawn = (part, *self._draw(part))
        _, samples, epochs = self._drawn
        here = slice(place * self._groups * GROUP, (place + 1) * self._groups * GROUP)
        return samples[here].copy(), epochs[here].copy()

    def _draw(self, part: int) -> tuple[np.ndarray, np.ndarray]:
        count = self._groups * self._batches
        groups = self._first + (part * count + np.arange(count)) * self._num_workers
        return sample_order((groups[:, None] * GROUP + np.arange(GROUP)).ravel(), self._num_samples, self._seed)


class _FixedOrder:
    """Given samples; absent ones past their end (DALI asks ahead)."""

    def __init__(self, samples: np.ndarray) -> None:
        self._samples = samples

    def __call__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        if number < len(self._samples):
            samples = self._samples[number]
        else:
            samples = np.full(self._samples.shape[1], -1, np.int64)
        return samples, np.full(len(samples), EVALUATION_EPOCH, np.int64)


class _Batches:
    """Batches of photographs: the host's part when DALI asks, the tensors when the squares are there."""

    def __init__(self, split: Split, parts: HostParts, settings: DataSettings, micro_batch: int, device: torch.device) -> None:
        self._split, self._make, self._upload = split, parts, Upload(device)
        self._grey = grey_jpeg(GREY)
        self._parts: dict[int, HostPart] = {}
        self._number = 0
        self._squares = iter(SquareDecoder(
            self._host_part, micro_batch, settings.image_size, device, settings.decode_threads, settings.prefetch))

    @property
    def holes(self) -> dict[str, str]:
        return self._make.holes

    def __next__(self) -> Batch:
        squares, broken = next(self._squares)
        part = self._parts.pop(self._number)
        self._number += 1
        for index in broken:
            part.host.present[index] = False
            self._make.note(int(part.host.samples[index]), "cannot be decoded")
        return part.batch(self._upload, images=squares)

    def _host_part(self, number: int) -> JpegBatch:
        data: list[bytes] = []

        def fetch(samples: np.ndarray, present: np.ndarray) -> None:
            data.extend(self._read(int(sample), index, present) for index, sample in enumerate(samples))

        part = self._parts[number] = self._make.make(number, fetch)
        rows, present = part.rows, part.host.present
        start = np.stack([rows["top"], rows["left"]], axis=1).astype(np.int32)
        side = np.stack([rows["side"], rows["side"]], axis=1).astype(np.int32)
        start[~present], side[~present] = 0, 16
        return JpegBatch(data, start, side, rows["fill"])

    def _read(self, sample: int, index: int, present: np.ndarray) -> bytes:
        if not present[index]:
            return self._grey
        try:
            return self._split.read(sample)
        except (BrokenSample, OSError) as error:
            present[index] = False
            self._make.note(sample, str(error))
            return self._grey
