"""One micro-batch as it leaves the loader."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from kaleido_fast.data.batches.own_texts import OwnTexts
from kaleido_fast.data.batches.patches import Patches, PatchModel, Pixels
from kaleido_fast.kernels.plan import clean_plan
from kaleido_fast.kernels.plan_outputs import Plan, PlanInputs


@dataclass(frozen=True, slots=True)
class HostBatch:
    """What the host knows of a batch without asking the device: NumPy arrays, (B,)."""

    samples: np.ndarray  # int64, number of the sample in its split, -1 for an absent member of a group
    image_products: np.ndarray  # int64, rank of the photograph's product in its split
    text_products: np.ndarray  # int64, rank of the text's product
    lengths: np.ndarray  # int32, text tokens with [CLS] and [SEP]
    match: np.ndarray  # bool, the text is the photograph's own
    present: np.ndarray  # bool, False for a hole
    num_masked: np.ndarray | None = None  # int32, masked tokens where the plan comes with the batch
    mined: np.ndarray | None = None  # bool, the text is a mined negative; None where there are none
    rows: np.ndarray | None = None  # of the shards' table, where the batch comes from shards; of a hole zeros
    epochs: np.ndarray | None = None  # int64, the same


@dataclass(frozen=True, slots=True)
class Batch:
    """Whole groups in stream order; row b is member b % GROUP of its group. Tensors on the training device.

    Where a plan comes with the batch, B need not be whole groups.
    """

    patches: Patches
    tokens: Tensor  # (B, T) int32, [CLS] ... [SEP], then [PAD]
    lengths: Tensor  # (B,) int32
    alignment: Tensor  # (B, T) int64, bit p: the token goes with position p
    keys: Tensor  # (B,) int64, the bits of the sample key
    image_products: Tensor  # (B,) int64
    match: Tensor  # (B,) bool
    present: Tensor  # (B,) bool
    epochs: Tensor  # (B,) int64
    host: HostBatch
    own_texts: OwnTexts | None = None  # where contrast asks for them
    plan: Plan | None = None  # what was masked, turned, moved and greyed beforehand; None: it is drawn

    @property
    def plan_inputs(self) -> PlanInputs:
        """What its plan is drawn from."""
        return PlanInputs(tokens=self.tokens, lengths=self.lengths, alignment=self.alignment, keys=self.keys,
                          products=self.image_products, present=self.present, epochs=self.epochs)

    def clean_features(self, model: PatchModel, grids: tuple[int, ...], count: int) -> Tensor:
        """(count, K, F) features of the first samples' patches as they stand in the photographs."""
        return self.patches.first(count).features_and_targets(model, clean_plan(self.tokens[:count], grids))[0]

    @property
    def images(self) -> Tensor:
        """(B, S, S, 3) uint8: the locked squares of a batch that was asked for with its photographs."""
        assert isinstance(self.patches, Pixels)
        return self.patches.images
