"""The alignment that a generated catalogue's ground truth gives: words' spans against the boxes of what they name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from kaleido_fast.data.catalogue.locking import Lock
from kaleido_fast.kernels.geometry import GRIDS, level_offsets

ALIGNED_GRIDS = (3, 4, 5)  # SPEC 5


def read_truth(file: Path) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """Parts by (product id, photograph number). Raises ValueError as `read_truth_records`."""
    return {key: record["parts"] for key, record in read_truth_records(file).items()}


def read_truth_records(file: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """Records {"size": [width, height], "parts": …} by (product id, photograph number).

    Raises:
        ValueError: the file cannot be read.
    """
    try:
        with file.open(encoding="utf-8") as stream:
            records = [json.loads(line) for line in stream]
        return {(record["id"], record["photo"]): {"size": record["size"], "parts": record["parts"]} for record in records}
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{file}: not a truth file of a generated catalogue: {error}") from None


def true_alignment(
    parts: list[dict[str, Any]], offsets: list[tuple[int, int]], square: Lock, scale: float
) -> np.ndarray:
    """(num_tokens,) int64 masks: a token inside a part's span gets the patches of which at least half lies in its box.

    Args:
        parts: {"box": [x0, y0, x1, y1] in the original photograph's pixels, "spans": [[start, end], ...]}.
        offsets: each token's half-open character range.
        square: the locked square, in stored pixels; scale: stored over original pixels.
    """
    masks = np.zeros(len(offsets), np.uint64)
    for part in parts:
        bits = np.uint64(covered_positions(np.array(part["box"]) * scale, square))
        for start, end in part["spans"]:
            for token, (first, last) in enumerate(offsets):
                if first < end and last > start:
                    masks[token] |= bits
    return masks.view(np.int64)


def covered_positions(box: np.ndarray, square: Lock) -> int:
    """Bit p for each position p of grids 3, 4 and 5 of which at least half lies in `box`, by area."""
    return _positions(box, square, lambda share: share >= 0.5)


def touched_positions(box: np.ndarray, square: Lock) -> int:
    """Bit p for each position p of grids 3, 4 and 5 of which any part lies in `box`."""
    return _positions(box, square, lambda share: share > 0)


def _positions(box: np.ndarray, square: Lock, wanted: Callable[[np.ndarray], np.ndarray]) -> int:
    """Bit p where the share of position p that lies in `box` is a wanted one."""
    x0, x1 = (np.array([box[0], box[2]]) - square.left) / square.side
    y0, y1 = (np.array([box[1], box[3]]) - square.top) / square.side
    bits = 0
    for n, offset in zip(GRIDS, level_offsets(GRIDS), strict=True):
        if n not in ALIGNED_GRIDS:
            continue
        edges = np.arange(n + 1) / n
        across = (np.minimum(edges[1:], x1) - np.maximum(edges[:-1], x0)).clip(min=0) * n
        down = (np.minimum(edges[1:], y1) - np.maximum(edges[:-1], y0)).clip(min=0) * n
        for slot in np.flatnonzero(wanted(np.outer(down, across).ravel())):
            bits |= 1 << (offset + int(slot))
    return bits
