"""What a loader is handed: where the batches of a split come from. A source for each kind of patches:

    from_photographs.py          Pixels, decoded from the shards
    from_store.py                StoreRows, of a feature store
    authors/feature_batches.py   ReadyRows, of the authors' feature files
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from kaleido_fast.data.batches.batch import Batch
from kaleido_fast.data.batches.order import SampleOrder
from kaleido_fast.data.settings import DataSettings
from kaleido_fast.data.shards.split import Split


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """Which batches are wanted, and where."""

    order: SampleOrder
    micro_batch: int
    settings: DataSettings
    device: torch.device
    text_seed: int | None  # of the texts drawn; None: every text is the sample's own
    own_texts: bool = False  # whether a sample's own text comes too, for contrast
    field_seed: int | None = None  # of the fields that `settings` drop and shuffle; None: every text is whole
    holes: dict[str, str] = field(default_factory=dict)  # takes the samples that cannot be used, and why
    negatives: np.ndarray | None = None  # (products, C) int32, mined negatives of each product, then -1 (SPEC 10)


class BatchSource(Protocol):
    """Opened once a split; every loader asks it for batches in an order of its own."""

    @property
    def split(self) -> Split:
        """Whose samples it has."""

    def batches(self, request: BatchRequest) -> Iterator[Batch]:
        """Without end, made some ahead.

        Raises:
            ValueError: settings that do not go with the split.
        """

    def describe(self) -> dict[str, Any]:
        """What summary.json says of it, as plain JSON values."""
