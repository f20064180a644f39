"""The loader: whole groups of the stream, or given samples once, as batches of a source (DESIGN 'Determinism')."""

from collections.abc import Iterator

import numpy as np
import torch

from kaleido_fast.data.batches.batch import Batch
from kaleido_fast.data.batches.order import GivenOrder, StreamOrder
from kaleido_fast.data.batches.source import BatchRequest, BatchSource
from kaleido_fast.data.settings import DataSettings
from kaleido_fast.kernels.plan_rules import GROUP


class Loader:
    """Micro-batches of whole groups, without end; one worker's share of the stream.

    Args:
        position: global stream position to begin at, a multiple of GROUP; groups before it belong to the past.
        worker, num_workers: group g goes to worker g mod num_workers.
        holes: takes the samples that could not be read, and why.
        draw_text: whether mismatched texts are drawn, and fields dropped and shuffled as the settings say; otherwise every text
            is the sample's own, and whole.
        own_texts: whether a sample's own text comes beside the drawn one.
        negatives: (products, C) int32 mined negatives of each product, then -1; None before they are mined.
    Raises:
        ValueError: sizes or positions that are not whole groups, settings that do not go with the source.
    """

    def __init__(
        self, source: BatchSource, settings: DataSettings, *, seed: int, micro_batch: int, device: torch.device,
        worker: int = 0, num_workers: int = 1, position: int = 0, holes: dict[str, str] | None = None,
        draw_text: bool = True, own_texts: bool = False, negatives: np.ndarray | None = None,
    ) -> None:
        if micro_batch < GROUP or micro_batch % GROUP or position % GROUP:
            raise ValueError(f"loader: micro_batch={micro_batch} and position={position} must be multiples of {GROUP}")
        self.holes: dict[str, str] = {} if holes is None else holes
        order = StreamOrder(source.split.num_samples, seed, position // GROUP, micro_batch // GROUP, worker, num_workers)
        drawn = seed if draw_text else None
        self._batches = source.batches(
            BatchRequest(order, micro_batch, settings, device, drawn, own_texts, drawn, self.holes, negatives))

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        return next(self._batches)


def evaluation_batches(
    source: BatchSource, samples: np.ndarray, settings: DataSettings, *, seed: int, micro_batch: int, device: torch.device,
    draw_text: bool, own_texts: bool = False, holes: dict[str, str] | None = None,
) -> Iterator[Batch]:
    """The given samples once, in whole groups; what is missing from the last is absent (present False).

    Args:
        draw_text: whether mismatched texts are drawn (epoch 2^28 - 1); otherwise every text is the sample's own. Whole texts.
        own_texts: as of `Loader`.
        holes: takes the samples that could not be read, and why.
    """
    count = -(-len(samples) // micro_batch)
    if not count:
        return  # and nothing is opened
    padded = np.full(count * micro_batch, -1, np.int64)
    padded[: len(samples)] = samples
    order = GivenOrder(padded.reshape(count, micro_batch))
    batches = source.batches(BatchRequest(order, micro_batch, settings, device, seed if draw_text else None, own_texts,
                                          holes={} if holes is None else holes))
    for _ in range(count):
        yield next(batches)
