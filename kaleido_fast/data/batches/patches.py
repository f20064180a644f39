"""What a batch's patches are, one class a kind; each gives the features that the encoder reads (SPEC 2 'Rows').

    Pixels      photographs, cut and encoded in the step
    StoreRows   all rows that the feature store has of them; the plan says which are read
    ReadyRows   the rows themselves, turned and greyed before they were stored
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

from torch import Tensor

from kaleido_fast.data.store.photograph_rows import PhotographRows
from kaleido_fast.data.store.row_format import StoreDtype
from kaleido_fast.kernels.plan_outputs import Plan


class EncoderWidths(Protocol):
    """What is asked of a model's patch encoder."""

    @property
    def name(self) -> str:
        """As `model.patch_encoder` has it."""

    @property
    def num_features(self) -> int:
        """F."""

    @property
    def num_targets(self) -> int:
        """Width of what the colour tasks predict."""


class PatchModel(Protocol):
    """What is asked of a model, the fast one or the plain one."""

    @property
    def patch_encoder(self) -> EncoderWidths:
        """Whose features the model reads."""

    def features_and_targets(self, images: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
        """(B, K + G, F) and (B, K + G, num_targets) of (B, S, S, 3) uint8 images under a plan."""

    def features_with_unturned(self, images: Tensor, plan: Plan) -> tuple[Tensor, Tensor, Tensor]:
        """The same two, and (B, U, F) of the turned levels' patches as they stand in the photograph."""


@dataclass(frozen=True, slots=True)
class Pixels:
    """Locked squares; of a hole a grey one."""

    images: Tensor  # (B, S, S, 3) uint8
    locations: ClassVar[None] = None  # those of the grids

    def features_and_targets(self, model: PatchModel, plan: Plan) -> tuple[Tensor, Tensor]:
        """(B, K + G, F) features of the rows that `plan` shows, and (B, K + G, num_targets) what the colour tasks predict."""
        return model.features_and_targets(self.images, plan)

    def features_with_unturned(self, model: PatchModel, plan: Plan) -> tuple[Tensor, Tensor, Tensor]:
        """The same two, and (B, U, F) of the turned levels' patches as they stand in the photograph (SPEC 10)."""
        return model.features_with_unturned(self.images, plan)

    def first(self, count: int) -> "Pixels":
        """Those of the first samples."""
        return Pixels(self.images[:count])


@dataclass(frozen=True, slots=True)
class StoreRows:
    """All stored rows of the photographs, packed; zeros in a hole."""

    packed: Tensor  # (B, R, row_bytes) uint8 (store/row_format.py)
    dtype: StoreDtype
    rows: PhotographRows  # which they are
    locations: ClassVar[None] = None  # those of the grids

    def features_and_targets(self, model: PatchModel, plan: Plan) -> tuple[Tensor, Tensor]:
        """As `Pixels.features_and_targets`; of frozen features the targets are the same.

        Raises:
            ValueError: the features are not those of the model's patch encoder, or not all that the plan shows.
        """
        return _frozen(model, self.rows.read(self.packed, self.dtype, plan))

    def features_with_unturned(self, model: PatchModel, plan: Plan) -> tuple[Tensor, Tensor, Tensor]:
        """As `Pixels.features_with_unturned`; raises as `features_and_targets`."""
        return *self.features_and_targets(model, plan), self.rows.read_unturned(self.packed, self.dtype, plan.tasks)

    def first(self, count: int) -> "StoreRows":
        """Those of the first samples."""
        return replace(self, packed=self.packed[:count])


@dataclass(frozen=True, slots=True)
class ReadyRows:
    """The rows of SPEC 2 'Rows' as they lie ready; the batch's own plan says how they were made."""

    features: Tensor  # (B, K + G, F) floating: K clean ones, then the G greyed slots
    locations: Tensor | None = None  # (B, K, 5) the samples' own, as the model reads them; None: those of the grids
    unturned: Tensor | None = None  # (B, U, F) of the turned levels, unturned, where they are there

    def features_and_targets(self, model: PatchModel, plan: Plan) -> tuple[Tensor, Tensor]:
        """As `StoreRows.features_and_targets`; `plan` changes nothing here."""
        return _frozen(model, self.features)

    def features_with_unturned(self, model: PatchModel, plan: Plan) -> tuple[Tensor, Tensor, Tensor]:
        """As `Pixels.features_with_unturned`.

        Raises:
            ValueError: as `features_and_targets`, or the unturned patches are not there.
        """
        if self.unturned is None:
            raise ValueError("step: contrast needs the photograph as it is, and these rows hold turned patches alone; set "
                             "train.task_weights.itc=0")
        return *self.features_and_targets(model, plan), self.unturned

    def first(self, count: int) -> "ReadyRows":
        """Those of the first samples."""
        return ReadyRows(self.features[:count], *(None if part is None else part[:count]
                                                 for part in (self.locations, self.unturned)))


Patches = Pixels | StoreRows | ReadyRows


def _frozen(model: PatchModel, features: Tensor) -> tuple[Tensor, Tensor]:
    """Features and, the same, targets."""
    encoder = model.patch_encoder
    if not features.shape[2] == encoder.num_features == encoder.num_targets:
        raise ValueError(f"step: the batch's features have width {features.shape[2]}, model.patch_encoder="
                         f"{encoder.name} has features of {encoder.num_features} and targets of {encoder.num_targets}; "
                         f"set model.patch_encoder=none and model.patch_features={features.shape[2]}")
    return features, features
