"""Locking: the square around the product and its fill colour (SPEC 2.1), with the plain-background foreground finder.

Coordinates are pixels of the EXIF-upright photograph, boxes half-open (x0, y0, x1, y1).
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

MIN_SIDE = 16  # of a locked square, in pixels
SEARCH_SIDE = 256  # the finder works on a copy no larger than this
THRESHOLD_SIGMAS = 5.0  # background noise, in robust standard deviations, that is still background
MIN_DISTANCE = 10.0  # of a foreground pixel from the background, in 8-bit steps; below it lies JPEG noise
MIN_SHARE = 0.003  # of a row or column that must be foreground, so that specks do not stretch the box
MAX_BACKGROUND_NOISE = 14.0  # robust deviation of the frame above which the background is not plain


@dataclass(frozen=True, slots=True)
class Lock:
    """A square of side `side` at (left, top), which may lie partly outside the photograph, and its fill colour."""

    left: int
    top: int
    side: int
    fill: tuple[int, int, int]


def lock(image: np.ndarray, box: tuple[int, int, int, int] | None) -> Lock:
    """The locked square of a photograph (SPEC 2.1).

    Args:
        image: (H, W, 3) uint8.
        box: the foreground; None squares the whole photograph without growing it.
    """
    height, width = image.shape[:2]
    return Lock(*square_around(width, height, box), frame_colour(image))


def square_around(width: int, height: int, box: tuple[int, int, int, int] | None) -> tuple[int, int, int]:
    """Left, top and side of the square that `lock` makes of `box`, or of the whole photograph."""
    x0, y0, x1, y1 = box or (0, 0, width, height)
    w, h = x1 - x0, y1 - y0
    grow_x, grow_y = ((w + 10) // 20, (h + 10) // 20) if box else (0, 0)
    side = max(w + 2 * grow_x, h + 2 * grow_y, MIN_SIDE)
    return (x0 + x1 - side) // 2, (y0 + y1 - side) // 2, side


def frame_colour(image: np.ndarray) -> tuple[int, int, int]:
    """Per channel the lower median of the outermost one-pixel frame, each pixel once."""
    ordered = np.sort(_frame(image), axis=0)
    red, green, blue = ordered[(len(ordered) - 1) // 2]
    return int(red), int(green), int(blue)


def crop_locked(image: np.ndarray, square: Lock) -> np.ndarray:
    """(side, side, 3) uint8: the square cut out, the fill colour where the photograph does not reach."""
    height, width = image.shape[:2]
    out = np.empty((square.side, square.side, 3), np.uint8)
    out[:] = square.fill
    x0, y0 = max(square.left, 0), max(square.top, 0)
    x1, y1 = min(square.left + square.side, width), min(square.top + square.side, height)
    if x1 > x0 and y1 > y0:
        out[y0 - square.top : y1 - square.top, x0 - square.left : x1 - square.left] = image[y0:y1, x0:x1]
    return out


def find_foreground(image: np.ndarray) -> tuple[int, int, int, int] | None:
    """The product's box on a plain background; None where the background is not plain or nothing stands out.

    The background is a plane a channel, fitted to the frame (a soft gradient is still plain); a pixel is foreground
    where it differs from that plane by more than the frame's own noise.
    """
    height, width = image.shape[:2]
    small = _shrink(image).astype(np.float32)
    background, noise = _background_plane(small)
    if noise > MAX_BACKGROUND_NOISE:
        return None
    distance = np.abs(small - background).max(axis=2)
    threshold = max(MIN_DISTANCE, THRESHOLD_SIGMAS * noise)
    mask = (distance > threshold) & (_smooth(distance) > threshold)  # neither a speck nor the blur around an edge
    columns, rows = _extent(mask, axis=0), _extent(mask, axis=1)
    if columns is None or rows is None:
        return None
    scale_x, scale_y = width / small.shape[1], height / small.shape[0]
    return (
        int(columns[0] * scale_x), int(rows[0] * scale_y),
        min(width, int(np.ceil(columns[1] * scale_x))), min(height, int(np.ceil(rows[1] * scale_y))),
    )


def _frame(image: np.ndarray) -> np.ndarray:
    """(n, 3): the pixels of the outermost frame, each once."""
    if min(image.shape[:2]) <= 2:
        return image.reshape(-1, 3)
    return np.concatenate([image[0], image[-1], image[1:-1, 0], image[1:-1, -1]])


def _shrink(image: np.ndarray) -> np.ndarray:
    factor = max(image.shape[:2]) // SEARCH_SIDE
    if factor < 2:
        return image
    return np.asarray(Image.fromarray(image).reduce(factor))


def _background_plane(image: np.ndarray) -> tuple[np.ndarray, float]:
    """(H, W, 3) fp32 plane through the frame's colours, fitted twice without outliers, and the frame's noise."""
    height, width = image.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    basis = np.stack([np.ones_like(x), x / max(width - 1, 1) - 0.5, y / max(height - 1, 1) - 0.5], axis=2)
    points, colours = _frame(basis), _frame(image)
    colour = np.median(colours, axis=0)
    residual = np.abs(colours - colour).max(axis=1)
    for _ in range(2):
        near = residual <= max(8.0, 2.5 * float(np.median(residual)))
        fit, *_ = np.linalg.lstsq(points[near], colours[near], rcond=None)
        residual = np.abs(colours - points @ fit).max(axis=1)
    return basis @ fit, 1.4826 * float(np.median(residual))


def _smooth(values: np.ndarray) -> np.ndarray:
    """Mean over 3 x 3 pixels: single noisy pixels sink below the threshold, edges stay."""
    padded = np.pad(values, 1, mode="edge")
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    return (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / 9


def _extent(mask: np.ndarray, axis: int) -> tuple[int, int] | None:
    """First and one past last line across `axis` that holds enough foreground."""
    counts = mask.sum(axis=axis)
    filled = np.flatnonzero(counts > max(1.0, MIN_SHARE * mask.shape[axis]))
    return (int(filled[0]), int(filled[-1]) + 1) if len(filled) else None
