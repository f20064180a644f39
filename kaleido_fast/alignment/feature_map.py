"""From the locked square to a feature map, h x w places of C numbers (SPEC 5).

small          trained with the captioner. A place sees 35 x 35 pixels around it and no more: had it a view of the whole
               picture, attention could rest anywhere and name everything.
patch_encoder  the network of `model.patch_encoder` before its pooling, frozen.
"""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from kaleido_fast.model.patch_encoders.build import PATCH_ENCODERS, patch_encoder_kind
from kaleido_fast.model.patch_encoders.pretrained import PretrainedEncoder

SMALL_STRIDE = 10


class FeatureMap(nn.Module):
    """(B, S, S, 3) uint8 squares in, (B, L, C) features out, L = side * side places row by row."""

    side: int
    channels: int
    mean: Tensor  # (3, 1, 1) of a pixel in 0..255, and its deviation
    std: Tensor

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """(B, S, S, 3) uint8 -> (B, L, C)."""


class SmallMap(FeatureMap):
    """Three convolutions, 10 pixels a place."""

    def __init__(self, image_size: int, channels: int, mean: Sequence[float], std: Sequence[float]) -> None:
        """Raises ValueError where the square is not a multiple of 10 pixels."""
        super().__init__()
        if image_size % SMALL_STRIDE:
            raise ValueError(f"data.image_size={image_size} must be a multiple of {SMALL_STRIDE} for align.network=small")
        self.side, self.channels = image_size // SMALL_STRIDE, channels
        self.register_buffer("mean", 255 * torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(std).view(3, 1, 1), persistent=False)
        convolutions = [
            nn.Conv2d(3, channels // 2, 5, stride=5), nn.Conv2d(channels // 2, channels, 3, stride=2, padding=1),
            nn.Conv2d(channels, channels, 3, padding=1),
        ]
        self.layers = nn.ModuleList(convolutions)
        self.norm = nn.LayerNorm(channels)
        for layer in convolutions:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.get_parameter("bias"))

    def forward(self, images: Tensor) -> Tensor:
        x = (images.permute(0, 3, 1, 2).float() - self.mean) / self.std
        for layer in self.layers:
            x = relu(layer(x))
        return self.norm(x.flatten(2).mT)


class FrozenMap(FeatureMap):
    """A pre-trained network up to its pooling; no gradient, its own precision."""

    def __init__(self, name: str, image_size: int, mean: Sequence[float], std: Sequence[float]) -> None:
        """Raises ValueError where `name` has no feature map. The weights are not a number until given."""
        super().__init__()
        kind = patch_encoder_kind(name)
        if not (issubclass(kind, PretrainedEncoder) and kind.map_stride):
            others = [key for key, value in PATCH_ENCODERS.items() if value.map_stride]
            raise ValueError(f"align.network=patch_encoder: model.patch_encoder={name} has no feature map; those that have "
                             f"one: {', '.join(others)}; or set align.network=small")
        self.encoder = kind(image_size, mean, std)
        self.channels = kind.num_features
        self.register_buffer("mean", 255 * torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(std).view(3, 1, 1), persistent=False)
        self.side = -(-image_size // kind.map_stride)

    def forward(self, images: Tensor) -> Tensor:
        patches = (images.permute(0, 3, 1, 2).float() - self.mean) / self.std
        dtype = self.encoder.network_dtype(images.device)
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            return self.encoder.feature_map(self.encoder.network_input(patches, dtype)).flatten(2).mT.float()
