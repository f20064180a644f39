"""NumPy twins of the loader's stages: what DALI must give."""

import io

import numpy as np
from PIL import Image

from kaleido_fast.data.catalogue.locking import Lock, crop_locked


def decode(data: bytes) -> np.ndarray:
    """(H, W, 3) uint8."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def clamped_triangle(size: int, out: int) -> np.ndarray:
    """(out, size) weights of the antialiased triangle filter; taps beyond the edge fall on the edge pixel."""
    scale = size / out
    reach = max(scale, 1.0)
    weights = np.zeros((out, size))
    for i in range(out):
        centre = (i + 0.5) * scale
        first, last = int(np.floor(centre - reach - 0.5)), int(np.ceil(centre + reach + 0.5))
        for tap in range(first, last + 1):
            weight = max(0.0, 1 - abs(tap + 0.5 - centre) / reach)
            weights[i, min(max(tap, 0), size - 1)] += weight
    return weights / weights.sum(axis=1, keepdims=True)


def resize(square: np.ndarray, size: int) -> np.ndarray:
    """(S, S, 3) float64 before it is rounded to 8 bits."""
    weights = clamped_triangle(square.shape[0], size)
    return np.einsum("yi,ijc,xj->yxc", weights, square.astype(np.float64), weights)


def locked_square(data: bytes, lock: Lock, size: int) -> np.ndarray:
    """(S, S, 3) float64: decode, crop with fill, resize."""
    return resize(crop_locked(decode(data), lock), size)
