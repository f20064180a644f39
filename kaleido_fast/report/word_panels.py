"""A word on the locked photograph: where the captioner looked, the patches it is aligned with, what an epoch hides."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.patches import Rectangle

from kaleido_fast.kernels.geometry import level_offsets

LEVEL_COLOURS = {3: "#d9480f", 4: "#1c7ed6", 5: "#2b8a3e"}  # of the aligned levels
LEGEND = ("framed: the patches of a word (3 × 3 orange, 4 × 4 blue, 5 × 5 green); hatched: what the epoch hides; bright: "
          "where the captioner looked, smoothed")
OTHER_LEVEL = "#5b626d"
DARKEST = 0.75  # what was not looked at


class ShownWord(NamedTuple):
    """A word of a product's text."""

    text: str
    first: int  # its tokens are first..last - 1 of the text without special ones
    last: int
    mask: int  # bit p for position p
    heat: np.ndarray | None  # (S, S), where the captioner looked, smoothed


class ShownWords(NamedTuple):
    """The words of a product that an alignment knows of."""

    about: str  # whose alignment, or why there is none
    words: list[ShownWord]
    masks: np.ndarray | None = None  # (W,) int64 of its tokens, where they are not those of the files


def show_word(axes: Any, image: np.ndarray, word: ShownWord, status: str, hidden: int, grids: Sequence[int]) -> None:
    """Draw a word.

    Args:
        image: (S, S, 3) uint8 locked square.
        status: what the epoch does to it, under its name.
        hidden: bit p for a position that the epoch hides; those of the word are hatched.
    """
    axes.imshow(image, extent=(0, 1, 1, 0))
    if word.heat is not None:
        axes.imshow(_shade(word.heat), extent=(0, 1, 1, 0), interpolation="bilinear")
    frame(axes, word.mask, grids)
    frame(axes, word.mask & hidden, grids, hatch="////")
    axes.set(xlim=(0, 1), ylim=(1, 0))
    axes.set_title(f"{word.text}\n{status}", fontsize=9, parse_math=False, pad=3)


def show_hidden(axes: Any, image: np.ndarray, hidden: int, grids: Sequence[int], title: str) -> None:
    """Draw all that an epoch hides."""
    axes.imshow(image, extent=(0, 1, 1, 0))
    frame(axes, hidden, grids, hatch="////")
    axes.set(xlim=(0, 1), ylim=(1, 0))
    axes.set_title(title, fontsize=9, pad=3)


def _shade(heat: np.ndarray) -> np.ndarray:
    """(S, S, 4) black that is thinner the more was looked at a place."""
    shade = np.zeros((*heat.shape, 4))
    shade[..., 3] = DARKEST * (1 - heat / max(heat.max(), 1e-9))
    return shade


def frame(axes: Any, mask: int, grids: Sequence[int], hatch: str = "") -> None:
    """Frame the patches of a mask in their levels' colours; frames of two levels do not hide each other."""
    for grid, slot in patches_of(mask, grids):
        inset = (grid - 3) * 0.006
        axes.add_patch(Rectangle(
            (slot % grid / grid + inset, slot // grid / grid + inset), 1 / grid - 2 * inset, 1 / grid - 2 * inset, fill=False,
            edgecolor=LEVEL_COLOURS.get(grid, OTHER_LEVEL), linewidth=1.2, hatch=hatch))


def patches_of(mask: int, grids: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Grid and slot of each position of a mask, ascending."""
    for grid, offset in zip(grids, level_offsets(grids), strict=True):
        for slot in range(grid * grid):
            if mask >> (offset + slot) & 1:
                yield grid, slot
