"""none: no network; features come ready, from a store or from files such as the authors'."""

from typing import Self

from torch import Tensor

from kaleido_fast.model.patch_encoders.interface import FrozenEncoder
from kaleido_fast.model.settings import KaleidoSettings, ModelSettings


class AbsentEncoder(FrozenEncoder):
    """Says how wide the features are that come from elsewhere, and that it cannot make any."""

    name = "none"
    least_patch_size = 1
    makes_features = False
    takes_width = True

    @classmethod
    def from_settings(cls, settings: ModelSettings, kaleido: KaleidoSettings) -> Self:
        return cls(kaleido.patch_size, settings.patch_features)

    @classmethod
    def check(cls, settings: ModelSettings, kaleido: KaleidoSettings) -> None:
        """Its width must be given: nothing here knows it."""
        super().check(settings, kaleido)
        if not settings.patch_features:
            raise ValueError("model.patch_encoder=none needs model.patch_features=F, the width of the features that come "
                             "from elsewhere; 2048 in the authors' files")

    def __init__(self, patch_size: int, num_features: int) -> None:
        super().__init__(patch_size)
        self.num_features = num_features

    def encode(self, patches: Tensor) -> Tensor:
        """Raises ValueError: there is nothing to encode with."""
        raise ValueError(f"model.patch_encoder=none: {len(patches)} patches came without their features, and there is no "
                         "network to make them; use shards with stored features, or another model.patch_encoder")
