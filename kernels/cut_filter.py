"""The numbers of `cut` that depend on its geometry alone: filter taps and normalisation (SPEC 2.3 and 2.4)."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)
FULL_SCALE = 255.0  # a photograph's white


def normalisation(mean: Sequence[float], std: Sequence[float]) -> tuple[Tensor, Tensor]:
    """(3,) float64 scale and shift that take 0..255 to (x/255 - mean) / std."""
    centre = torch.tensor(mean, dtype=torch.float64)
    spread = torch.tensor(std, dtype=torch.float64)
    return 1 / (FULL_SCALE * spread), -centre / spread


@lru_cache(maxsize=64)
def num_taps(side: int, size: int) -> int:
    """The most pixels of `side` that any of `size` outputs needs."""
    return int((_triangle(side, size) > 0).sum(dim=1).max())


def triangle_taps(side: int, size: int, taps: int) -> tuple[Tensor, Tensor]:
    """The antialiased triangle filter from `side` pixels to `size`: taps beyond the edge dropped, sums one.

    Args:
        taps: how many an output gets, from `num_taps` to `side`; the surplus weighs nothing.
    Returns:
        (size,) int64 first pixel, and (size, taps) float64 weights of the pixels from there, all in the side.
    """
    raw = _triangle(side, size)
    first = (raw > 0).int().argmax(dim=1).clamp(max=side - taps)
    weights = raw.double() / raw.sum(dim=1, keepdim=True)
    return first, weights.gather(1, first[:, None] + torch.arange(taps))


def _triangle(side: int, size: int) -> Tensor:
    """(size, side) int64: the filter before it is scaled; integers, so that a weight of zero is exactly zero."""
    half_width = 2 * max(side, size)
    centres = (2 * torch.arange(size) + 1) * side
    distance = ((2 * torch.arange(side) + 1) * size - centres[:, None]).abs()
    return (half_width - distance).clamp(min=0)
