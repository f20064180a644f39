"""What every patch encoder is, and what the frozen ones share.

    features = encoder(patches)                    (R, F), what the embeddings project
    targets = encoder.targets(patches, features)   (R, num_targets), what the two colour tasks predict of clean patches

A frozen encoder's targets are its features. It holds its weights as buffers: no optimizer and no ZeRO stage sees them,
and they travel with the model's state dict. What the rest of the project must know of an encoder, its class says: nothing
else asks for its name (the table of them is in build.py).
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from kaleido_fast.model.settings import KaleidoSettings, ModelSettings


class PatchEncoder(nn.Module):
    """(R, 3, P, P) normalised patches in, (R, F) features out."""

    name: ClassVar[str]  # as `model.patch_encoder` has it
    least_patch_size: ClassVar[int]
    makes_features: ClassVar[bool] = True  # false: they come ready, from a store or from files
    takes_width: ClassVar[bool] = False  # `model.patch_features` says how wide its features are
    map_stride: ClassVar[int] = 0  # pixels of a picture that a place of its `feature_map` stands for; 0: it has no map
    num_features: int  # F
    num_targets: int  # width of the colour tasks' targets

    @classmethod
    def from_settings(cls, settings: ModelSettings, kaleido: KaleidoSettings) -> Self:
        """Built as the settings say. Raises ValueError where kaleido.patch_size is too small."""
        return cls(kaleido.patch_size, kaleido.mean, kaleido.std)  # type: ignore[call-arg]  # as all but two take them

    @classmethod
    def check(cls, settings: ModelSettings, kaleido: KaleidoSettings) -> None:
        """Refuse settings that do not go with it (ValueError, naming the keys)."""
        cls.check_patch_size(kaleido.patch_size)

    def __init__(self, patch_size: int) -> None:
        """Raises ValueError where the patch is too small."""
        super().__init__()
        self.check_patch_size(patch_size)

    @classmethod
    def check_patch_size(cls, patch_size: int) -> None:
        """Refuse a patch that is too small (ValueError)."""
        if patch_size < cls.least_patch_size:
            raise ValueError(f"kaleido.patch_size={patch_size}: the {cls.name} encoder needs at least "
                             f"{cls.least_patch_size}")

    def compile_network(self) -> None:
        """Run what is worth it through torch.compile from now on: here nothing."""

    def rounds_on(self, device: torch.device) -> bool:
        """Whether it computes in 16 bit there, whatever surrounds it."""
        return False

    @abstractmethod
    def forward(self, patches: Tensor) -> Tensor:
        """(R, 3, P, P) normalised patches -> (R, F) features in fp32."""

    @abstractmethod
    def targets(self, patches: Tensor, features: Tensor) -> Tensor:
        """(R, num_targets) fp32 without gradient, of the patches and the features `forward` made of them."""


class FrozenEncoder(PatchEncoder):
    """Without gradient, always in evaluation mode, in a precision of its own whatever surrounds it."""

    @property
    def num_targets(self) -> int:  # type: ignore[override]
        return self.num_features

    def forward(self, patches: Tensor) -> Tensor:
        """(R, 3, P, P) -> (R, F); the same under autocast and outside."""
        with torch.no_grad(), torch.autocast(patches.device.type, enabled=False):
            return self.encode(patches)

    @abstractmethod
    def encode(self, patches: Tensor) -> Tensor:
        """What `forward` gives, called without gradient and without autocast."""

    def targets(self, patches: Tensor, features: Tensor) -> Tensor:
        return features

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode."""
        return super().train(False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves follow the model, changes of dtype do not: `model.bfloat16()` would round the frozen weights."""
        def moved(tensor: Tensor) -> Tensor:
            new = fn(tensor)
            return new if new.dtype == tensor.dtype else tensor.to(new.device)

        return super()._apply(moved, recurse)


def pixel_rows(patches: Tensor) -> Tensor:
    """(R, 3, P, P) -> (R, P*P*3), channels last; no copy where the patches lie so."""
    return patches.permute(0, 2, 3, 1).reshape(patches.shape[0], -1)


def affine_to(
    mean: Sequence[float], std: Sequence[float], own_mean: Sequence[float], own_std: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """(3, 1, 1) fp32 scale and shift from patches normalised by `mean`, `std` to `own_mean`, `own_std` (of x/255)."""
    values = torch.tensor([mean, std, own_mean, own_std], dtype=torch.float64)
    m, s, own_m, own_s = values.view(4, 3, 1, 1)
    return (s / own_s).float(), ((m - own_m) / own_s).float()
