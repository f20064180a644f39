"""Words of a product and the patches they are aligned with, each on the photograph, over where the captioner looked."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from kaleido_fast.data.true_alignment import ALIGNED_GRIDS
from kaleido_fast.kernels.geometry import GRIDS, level_offsets
from kaleido_fast.report.png import png

LEVEL_COLOURS = {3: "#d9480f", 4: "#1c7ed6", 5: "#2b8a3e"}
INCHES, DOTS_PER_INCH, COLUMNS = 1.9, 150, 6


class ShownWord(NamedTuple):
    """A word of the figure."""

    text: str
    mask: int  # bit p for position p
    heat: np.ndarray | None  # (side, side), where the captioner looked


def alignment_figure(image: np.ndarray, words: Sequence[ShownWord], name: str) -> bytes:
    """A PNG, six words a row; every aligned patch is framed in its level's colour.

    Args:
        image: (S, S, 3) uint8 locked square.
        name: of the alignment, for the title.
    """
    rows = max(1, -(-len(words) // COLUMNS))
    figure = Figure(figsize=(COLUMNS * INCHES, rows * (INCHES + 0.3) + 0.4), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, word in zip(axes, words, strict=False):
        _show(axis, image, word)
    levels = ", ".join(f"{grid} × {grid} {colour}" for grid, colour in
                       zip(LEVEL_COLOURS, ("orange", "blue", "green"), strict=True))
    figure.suptitle(f"alignment '{name}': patches of each word ({levels})", fontsize=9)
    return png(figure)


def _show(axis: Any, image: np.ndarray, word: ShownWord) -> None:
    axis.imshow(image, extent=(0, 1, 1, 0))
    if word.heat is not None:
        axis.imshow(word.heat, extent=(0, 1, 1, 0), cmap="inferno", alpha=0.55, interpolation="bilinear")
    for grid, offset in zip(GRIDS, level_offsets(GRIDS), strict=True):
        for slot in range(grid * grid) if grid in ALIGNED_GRIDS else ():
            if word.mask >> (offset + slot) & 1:
                inset = (grid - 3) * 0.006  # frames of two levels do not hide each other
                axis.add_patch(Rectangle((slot % grid / grid + inset, slot // grid / grid + inset), 1 / grid - 2 * inset,
                                         1 / grid - 2 * inset, fill=False, edgecolor=LEVEL_COLOURS[grid], linewidth=1.2))
    axis.set(xlim=(0, 1), ylim=(1, 0))
    axis.set_title(word.text, fontsize=9, parse_math=False)
