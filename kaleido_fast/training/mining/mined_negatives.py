"""The mined negatives of a run: when they are mined, and where they lie (SPEC 10)."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kaleido_fast.data.batches.source import BatchSource
from kaleido_fast.training.engine import Engine
from kaleido_fast.training.mining.lists import EmbeddedProducts, draw_lists
from kaleido_fast.training.mining.products import embed_products
from kaleido_fast.training.settings import StepConfig
from kaleido_fast.training.workers.group import Workers

NEGATIVES = "mined_negatives.npy"  # in a checkpoint: (products, data.mine_count) int32 ranks by rank, then -1


@dataclass(slots=True)
class MinedNegatives:
    """One worker's lists, the same on all workers."""

    engine: Engine
    source: BatchSource
    config: StepConfig
    workers: Workers
    lists: np.ndarray | None = None  # (products, data.mine_count) int32; None before the first mining
    at_start: bool = False  # whether they are mined before the first step, too

    def due(self, position: int, samples: int) -> int | None:
        """The epoch that lists must be mined for before a step of so many samples at stream position `position`; None: none
        is due."""
        every, num_samples = self.config.data.mine_every, self.source.split.num_samples
        before, epoch = (last // num_samples // every * every for last in (max(position - 1, 0), position + samples - 1))
        needed = self.lists is None and (self.at_start or epoch > 0)
        return epoch if epoch > before or needed else None

    def mine(self, epoch: int) -> dict[str, Any]:
        """Draw the lists by the weights of this moment; how that went. All workers call it."""
        started = time.perf_counter()
        products = embed_products(self.engine, self.source, self.config, self.workers)
        self.lists = self._draw(products, epoch)
        return {"epoch": epoch, "products": len(self.lists), "empty_share": float((self.lists[:, 0] < 0).mean()),
                "seconds": time.perf_counter() - started}

    def _draw(self, products: EmbeddedProducts, epoch: int) -> np.ndarray:
        """The lists of all products; each worker draws those of a consecutive part of the order by sub-category."""
        split, workers, settings = self.source.split, self.workers, self.config.data
        kinds = [split.products_of_subcategory(kind) for kind in range(len(split.manifest.subcategories))]
        share = -(-split.num_products // workers.count)
        first, drawn, start = workers.rank * share, np.full((share, settings.mine_count), -1, np.int32), 0
        for members in kinds:
            low, high = (min(max(place - start, 0), len(members)) for place in (first, first + share))
            if low < high:
                drawn[start + low - first : start + high - first] = draw_lists(
                    products, members, low, high, count=settings.mine_count, seed=self.config.train.seed, epoch=epoch,
                    device=workers.device)
            start += len(members)
        lists = np.empty((split.num_products, settings.mine_count), np.int32)
        lists[np.concatenate(kinds)] = workers.gathered(drawn)[: split.num_products]
        return lists


def read_negatives(checkpoint: Path, num_products: int, count: int) -> np.ndarray | None:
    """The lists of a checkpoint, (num_products, count) int32; None where it was written before the first mining.

    Raises:
        ValueError: they are of other shards or settings.
    """
    file = checkpoint / NEGATIVES
    if not file.is_file():
        return None
    lists = np.load(file, mmap_mode="r")
    if lists.dtype != np.int32 or lists.shape != (num_products, count):
        raise ValueError(f"{file}: {lists.dtype} numbers of shape {lists.shape}, expected int32 of ({num_products}, {count}); "
                         "resume from an older checkpoint by editing 'latest'")
    return np.array(lists)  # a checkpoint is removed while the run goes on
