"""The resize of SPEC 2.2 without DALI, for pictures by the handful, bit for bit as DALI 2.4 has it on a CPU.

Triangle filter with antialiasing, half-pixel centres, taps beyond the square's edge on the edge pixel, in fp32. Where
the exact value lies in the middle between two, the order of fp32 sums and the kind of rounding decide; so both follow
DALI: columns first where the square grows, rows first where it shrinks, taps from left to right; the last pass rounds 16
values at a time to even, what is left over of a run half up. tests/data/catalogue/test_resize.py holds it to DALI.
"""

import numpy as np

LANES = 16  # 8-bit values that DALI rounds at a time
ROWS, COLUMNS = 0, 1


def resize_square(square: np.ndarray, size: int) -> np.ndarray:
    """(n, n, 3) uint8 -> (size, size, 3) uint8."""
    old = len(square)
    start, weights = edge_clamped_taps(old, size)
    first, last = (ROWS, COLUMNS) if old > size else (COLUMNS, ROWS)
    values = _pass(_pass(square, start, weights, first), start, weights, last)
    half_up = _left_over(start, weights.shape[1], old) if last == COLUMNS else _row_left_over(size)
    return np.where(half_up, np.floor(values + np.float32(0.5)), np.rint(values)).clip(0, 255).astype(np.uint8)


def edge_clamped_taps(old: int, new: int) -> tuple[np.ndarray, np.ndarray]:
    """The triangle filter along one axis: first input pixel (new,) int64 and weights (new, taps) fp32 of each output pixel.

    A tap beyond the edge keeps its weight and reads the edge pixel; the kernels' filter of a cell drops it (SPEC 2.3).
    Weights sum to one. First pixels may be negative, last ones lie beyond the edge: clip them.
    """
    one, half = np.float32(1), np.float32(0.5)
    step = np.float32(old) / np.float32(new)
    reach = max(step, one)
    slope = one / reach
    places = np.arange(new, dtype=np.float32) * step + (half * step - half - one / slope)
    start = np.ceil(places)
    tap = np.arange(int(np.ceil(2 / slope)), dtype=np.float32)
    x = ((start - places)[:, None] + tap) * slope  # 0..2, the peak at 1
    part = x - np.floor(x)
    weights = np.where(x < 1, part, np.where(x < 2, one - part, np.float32(0)))
    total = np.zeros(new, np.float32)
    for column in weights.T:
        total = total + column
    return start.astype(np.int64), weights / total[:, None]


def _pass(values: np.ndarray, start: np.ndarray, weights: np.ndarray, axis: int) -> np.ndarray:
    """One axis resampled, in fp32."""
    shape = (-1, 1, 1) if axis == ROWS else (1, -1, 1)
    total = np.zeros((), np.float32)
    for tap, weight in enumerate(weights.T):
        picked = values.take((start + tap).clip(0, values.shape[axis] - 1), axis=axis).astype(np.float32)
        total = total + weight.reshape(shape) * picked
    return total


def _row_left_over(size: int) -> np.ndarray:
    """(1, S, 3) bool: values of a row behind its last whole 16."""
    return (np.arange(size * 3) >= size * 3 - size * 3 % LANES).reshape(1, size, 3)


def _left_over(start: np.ndarray, taps: int, old: int) -> np.ndarray:
    """(1, S, 1) bool: columns behind the last whole 16 of a run; the runs are those that reach beyond the left edge,
    beyond none, beyond the right one."""
    size = len(start)
    inside = int((start < 0).sum()), size - int((start + taps > old).sum())
    out = np.zeros(size, bool)
    for begin, end in ((0, inside[0]), (inside[0], inside[1]), (inside[1], size)):
        out[end - (end - begin) % LANES : end] = True
    return out.reshape(1, size, 1)
