"""The loader: groups of the stream, text drawn by the host, bytes by offset, squares from DALI (DESIGN).

Host work (rows, text, bytes) of a batch is done when DALI asks for it, some batches ahead of the step. Shards with stored
features have their batches from stored_loader.py, in the same order.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from kaleido_fast.data.batch import Batch, HostBatch
from kaleido_fast.data.dali import GREY, JpegBatch, SquareDecoder
from kaleido_fast.data.itm import TextDraw
from kaleido_fast.data.photograph import grey_jpeg
from kaleido_fast.data.settings import DataSettings
from kaleido_fast.data.shards import REPAIR, BrokenSample, Split
from kaleido_fast.data.stored_loader import StoredBatches
from kaleido_fast.data.stream import GROUP, sample_order
from kaleido_fast.data.token_rows import token_rows

EVALUATION_EPOCH = 2**28 - 1  # of the plans that evaluation draws; training epochs stay below (SPEC 6)


class Loader:
    """Micro-batches of whole groups, without end; one worker's share of the stream.

    Args:
        position: global stream position to begin at, a multiple of 16; groups before it belong to the past.
        worker, num_workers: group g goes to worker g mod num_workers.
        holes: takes the samples that could not be read, and why.
        draw_text: whether mismatched texts are drawn; otherwise every text is the sample's own.
    Raises:
        ValueError: sizes or positions that are not whole groups.
    """

    def __init__(
        self, split: Split, settings: DataSettings, *, seed: int, micro_batch: int, device: torch.device,
        worker: int = 0, num_workers: int = 1, position: int = 0, holes: dict[str, str] | None = None, draw_text: bool = True,
    ) -> None:
        if micro_batch < GROUP or micro_batch % GROUP or position % GROUP:
            raise ValueError(f"loader: micro_batch={micro_batch} and position={position} must be multiples of {GROUP}")
        self._order = _StreamOrder(split.num_samples, seed, position // GROUP, micro_batch // GROUP, worker, num_workers)
        self._batches = _batches(split, settings, seed if draw_text else None, self._order, micro_batch, device, holes)

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
    draw_text: bool, holes: dict[str, str] | None = None,
) -> Iterator[Batch]:
    """The given samples once, in whole groups; what is missing from the last is absent (present False).

    Args:
        draw_text: whether mismatched texts are drawn (epoch 2^28 - 1); otherwise every text is the sample's own.
        holes: takes the samples that could not be read, and why.
    """
    count = -(-len(samples) // micro_batch)
    padded = np.full(count * micro_batch, -1, np.int64)
    padded[: len(samples)] = samples
    order = _FixedOrder(padded.reshape(count, micro_batch))
    batches = _batches(split, settings, seed if draw_text else None, order, micro_batch, device, holes)
    for _ in range(count):
        yield next(batches)


def _batches(
    split: Split, settings: DataSettings, seed: int | None, order: "_StreamOrder | _FixedOrder", micro_batch: int,
    device: torch.device, holes: dict[str, str] | None,
) -> "_Batches | StoredBatches":
    """Of photographs, or of stored features, whose text and plan are fixed."""
    if split.manifest.features is not None:
        return StoredBatches(split, settings, order, micro_batch, device, holes)
    return _Batches(split, settings, seed, order, micro_batch, device, holes)


class _StreamOrder:
    """Samples and epochs of a worker's i-th micro-batch."""

    def __init__(
        self, num_samples: int, seed: int, first_group: int, groups: int, worker: int, num_workers: int
    ) -> None:
        self._num_samples, self._seed, self._groups, self._num_workers = num_samples, seed, groups, num_workers
        self._first = first_group + (worker - first_group) % num_workers

    def __call__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        groups = self._first + (number * self._groups + np.arange(self._groups)) * self._num_workers
        positions = (groups[:, None] * GROUP + np.arange(GROUP)).ravel()
        return sample_order(positions, self._num_samples, self._seed)


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
    """Assembles batches: the host's part when DALI asks, the tensors when the squares are there."""

    def __init__(
        self, split: Split, settings: DataSettings, seed: int | None,
        order: "_StreamOrder | _FixedOrder", micro_batch: int, device: torch.device,
        holes: dict[str, str] | None = None,
    ) -> None:
        self._split, self._settings, self._order, self._device = split, settings, order, device
        self._draw = None if seed is None else TextDraw(split, settings, seed)
        self._grey = grey_jpeg(GREY)
        self._texts: dict[int, tuple[np.ndarray, ...]] = {}
        self._number = 0
        self.holes: dict[str, str] = {} if holes is None else holes
        split.require_alignment(settings.alignment)
        self._squares = iter(SquareDecoder(
            self._host_part, micro_batch, settings.image_size, device, settings.decode_threads, settings.prefetch))

    def __next__(self) -> Batch:
        squares, broken = next(self._squares)
        host, rows, tokens, alignment, epochs = self._texts.pop(self._number)
        self._number += 1
        for index in broken:
            host.present[index] = False
            self._note(int(host.samples[index]), "cannot be decoded")
        return Batch(
            images=squares, tokens=self._up(tokens), lengths=self._up(host.lengths), alignment=self._up(alignment),
            keys=self._up(rows["key"].view(np.int64)), image_products=self._up(host.image_products),
            text_products=self._up(host.text_products), match=self._up(host.match), present=self._up(host.present),
            epochs=self._up(epochs), host=host)

    def _up(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self._device, non_blocking=True)

    def _host_part(self, number: int) -> JpegBatch:
        samples, epochs = self._order(number)
        present = samples >= 0
        rows = self._split.rows(np.maximum(samples, 0))
        self._drop_lies(rows, samples, present, "its row in the table")
        data = [self._read(int(sample), index, present) for index, sample in enumerate(samples)]
        own = rows["product"].astype(np.int64)
        text_products, match = (own.copy(), np.ones(len(samples), bool)) if self._draw is None else \
            self._draw.products(rows, epochs)
        tokens, lengths, alignment = self._text(text_products, samples, present)
        host = HostBatch(samples, own, text_products, lengths, match, present)
        self._texts[number] = (host, rows, tokens, alignment, epochs)
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
            self._note(sample, str(error))
            return self._grey

    def _note(self, sample: int, reason: str) -> None:
        self.holes[f"{self._split.name} sample {sample}"] = reason

    def _drop_lies(self, rows: np.ndarray, samples: np.ndarray, present: np.ndarray, what: str) -> None:
        """Make holes of samples whose `rows` hold numbers that cannot be, and clear those rows."""
        lies = ~self._split.plausible(rows)
        rows[lies] = np.zeros(1, rows.dtype)
        for index in np.flatnonzero(lies & present):
            present[index] = False
            self._note(int(samples[index]), f"{what} holds numbers that cannot be; {REPAIR}")

    def _text(
        self, products: np.ndarray, samples: np.ndarray, present: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(B, T) ids with [CLS] and [SEP], (B,) lengths, (B, T) alignment of the texts' products; holes are empty."""
        vocabulary, most = self._split.manifest.vocabulary, self._settings.max_tokens
        firsts = self._split.products["first_sample"][products]
        rows = self._split.rows(firsts)
        self._drop_lies(rows, samples, present, "the row of its text's product")
        tokens, lengths = token_rows(rows["tokens"], np.where(present, rows["num_tokens"], 0), vocabulary, most)
        alignment = np.zeros((len(products), most), np.int64)
        if self._settings.alignment != "none":
            masks = self._split.alignment(firsts, self._settings.alignment)
            width = min(masks.shape[1], most - 2)
            inside = np.arange(width) < lengths[:, None] - 2
            alignment[:, 1 : width + 1] = np.where(inside, masks[:, :width], 0)
        return tokens, lengths, alignment
