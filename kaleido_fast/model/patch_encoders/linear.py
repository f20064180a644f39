"""linear: a trained matrix from a patch's pixels to F numbers, as vision transformers have it.

Its own features would be targets that move, and that a matrix of zeros meets; the colour tasks predict the `dct` of the
clean patches instead.
"""

from collections.abc import Sequence
from typing import Self

from torch import Tensor, nn

from kaleido_fast.model.patch_encoders.dct import DctEncoder
from kaleido_fast.model.patch_encoders.interface import PatchEncoder, pixel_rows
from kaleido_fast.model.settings import KaleidoSettings, ModelSettings


class LinearEncoder(PatchEncoder):
    """Trainable; (R, P*P*3) pixels, channels last, times (P*P*3, F)."""

    name = "linear"
    least_patch_size = DctEncoder.least_patch_size
    num_targets = DctEncoder.num_features
    takes_width = True

    @classmethod
    def from_settings(cls, settings: ModelSettings, kaleido: KaleidoSettings) -> Self:
        return cls(kaleido.patch_size, kaleido.mean, kaleido.std, settings.patch_features or settings.hidden)

    def __init__(self, patch_size: int, mean: Sequence[float], std: Sequence[float], num_features: int) -> None:
        """Raises ValueError where a patch has fewer than 8 pixels a side."""
        super().__init__(patch_size)
        self.num_features = num_features
        self.projection = nn.Linear(3 * patch_size**2, num_features)
        self.dct = DctEncoder(patch_size, mean, std)

    def forward(self, patches: Tensor) -> Tensor:
        """(R, 3, P, P) -> (R, F) fp32, with gradient; multiplied in the weights' dtype, or autocast's."""
        return self.projection(pixel_rows(patches).to(self.projection.weight.dtype)).float()

    def targets(self, patches: Tensor, features: Tensor) -> Tensor:
        """(R, 192): the dct of the patches."""
        return self.dct(patches)
