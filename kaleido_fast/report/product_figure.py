"""One product in one figure: its photograph with the locked square, the five patch grids under their tasks, its words with
their patches, and what alignment-guided masking hides in one epoch."""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from kaleido_fast.data.catalogue.locking import Lock
from kaleido_fast.kernels.geometry import offset_of_grid
from kaleido_fast.kernels.plan_outputs import Plan
from kaleido_fast.kernels.plan_rules import NONE
from kaleido_fast.model.kaleido_tasks import active_tasks
from kaleido_fast.model.settings import KaleidoSettings
from kaleido_fast.model.task_table import KaleidoTask
from kaleido_fast.report.kaleido_panels import MARK, TaskPanels, caption, show_panel
from kaleido_fast.report.png import png
from kaleido_fast.report.word_panels import LEGEND, ShownWord, ShownWords, show_hidden, show_word

PITCH, SIDE, MARGIN = 1.9, 1.74, 0.1  # inches: from panel to panel, of a panel, around all
ONE_LINE, TWO_LINES, LINE = 0.28, 0.44, 0.17  # of a panel's title, of text
DOTS_PER_INCH = 150
LETTERS_A_COLUMN, MOST_LINES = 25, 3  # of text
MOST_WORDS = 11


@dataclass(frozen=True, slots=True)
class LockedPhotograph:
    """A photograph and the square that is cut out of it."""

    pixels: np.ndarray  # (h, w, 3) uint8
    square: Lock


@dataclass(frozen=True, slots=True)
class ShownProduct:
    """What a figure shows, one row of a batch of locked squares."""

    name: str
    photograph: LockedPhotograph | None  # None: it cannot be read
    images: Tensor  # (B, S, S, 3) uint8 on the CPU
    drawn: Plan  # the batch's
    row: int
    epoch: int
    text: str
    masked_text: str
    words: ShownWords
    read: Callable[[int, int], str]  # what the model reads at the text's tokens first..last - 1


def product_figure(shown: ShownProduct, kaleido: KaleidoSettings, dots_per_inch: int = DOTS_PER_INCH) -> bytes:
    """A PNG; the same product, plan and settings give the same bytes."""
    tasks = sorted(active_tasks(kaleido), key=lambda task: kaleido.grids.index(task.grid))
    columns, words = max(4, 1 + len(tasks)), shown.words.words[:MOST_WORDS]
    width = LETTERS_A_COLUMN * columns
    text_lines = [line for text in (f"text: {shown.text}", f"read in epoch {shown.epoch}: {shown.masked_text}")
            for line in textwrap.wrap(text, width, max_lines=MOST_LINES, placeholder=" …")]
    about = textwrap.wrap(f"{shown.words.about}{_left_out(shown.words.words)}. {LEGEND}", width)
    rows = -(-(1 + len(words)) // columns)
    page = _Page(columns, dots_per_inch, ONE_LINE + TWO_LINES + (2 + rows) * SIDE + rows * TWO_LINES
                 + (len(text_lines) + len(about) + 2) * LINE)
    first, *clean = page.panels(ONE_LINE, 1 + len(tasks))
    second, *changed = page.panels(TWO_LINES, 1 + len(tasks))
    _show_locked(first, shown)
    _show_donor(second, shown, tasks)
    pixels, row = TaskPanels(shown.images, shown.drawn, kaleido), shown.row
    for above, below, task in zip(clean, changed, tasks, strict=True):
        show_panel(above, task.grid, pixels.clean(row, task))
        show_panel(below, task.grid, pixels.changed(row, task))
        above.set_title(f"{task.grid} × {task.grid}", fontsize=10, pad=3)
        below.set_title(caption(shown.drawn, row, task), fontsize=9, pad=3)
    page.lines(text_lines)
    page.lines(about)
    _show_words(page, columns, shown, words, kaleido)
    return png(page.figure)


class _Page:
    """A figure that is filled from the top down; inches."""

    def __init__(self, columns: int, dots_per_inch: int, height: float) -> None:
        self._width, self._height, self._top = columns * PITCH, height + 2 * MARGIN, MARGIN
        self.figure = Figure(figsize=(self._width, self._height), dpi=dots_per_inch)

    def panels(self, title: float, count: int) -> list[Any]:
        """A row of square axes, each with room for its title."""
        self._top += title + SIDE
        bottom = 1 - self._top / self._height
        size = SIDE / self._width, SIDE / self._height
        axes = [self.figure.add_axes(((column * PITCH + (PITCH - SIDE) / 2) / self._width, bottom, *size))
                for column in range(count)]
        for one in axes:
            one.axis("off")
        return axes

    def lines(self, lines: list[str]) -> None:
        """A paragraph, and a line's room behind it."""
        for number, line in enumerate(lines, start=1):
            place = (PITCH - SIDE) / 2 / self._width, 1 - (self._top + number * LINE) / self._height
            self.figure.text(*place, line, fontsize=8.5, parse_math=False)
        self._top += (len(lines) + 1) * LINE


def _show_words(page: _Page, columns: int, shown: ShownProduct, words: list[ShownWord], kaleido: KaleidoSettings) -> None:
    """The epoch's masks in the first panel, then a panel a word."""
    image, hidden = shown.images[shown.row].numpy(), hidden_patches(shown.drawn, shown.row, kaleido.grids)
    masked = {int(place) - 1 for place in shown.drawn.masked_positions[shown.row] if place != NONE}
    panels = [panel for start in range(0, 1 + len(words), columns)
              for panel in page.panels(TWO_LINES, min(columns, 1 + len(words) - start))]
    title = f"epoch {shown.epoch} hides\n{len(masked)} tokens, {hidden.bit_count()} patches"
    show_hidden(panels[0], image, hidden, kaleido.grids, title)
    for panel, word in zip(panels[1:], words, strict=True):
        show_word(panel, image, word, _status(shown, word, masked, hidden), hidden, kaleido.grids)


def hidden_patches(drawn: Plan, row: int, grids: Sequence[int]) -> int:
    """Bit p for each position whose patch a task took."""
    hidden = 0
    for task in drawn.tasks:
        for slot in drawn.part(task).slots[row].tolist():
            if slot != NONE:
                hidden |= 1 << (offset_of_grid(grids, task.grid) + slot)
    return hidden


def _status(shown: ShownProduct, word: ShownWord, masked: set[int], hidden: int) -> str:
    """What the epoch does to a word and its patches."""
    if masked & set(range(word.first, word.last)):
        return f"masked, read as {shown.read(word.first, word.last)}"
    return "to be read, a patch hidden" if word.mask & hidden else ""


def _left_out(words: list[ShownWord]) -> str:
    more = len(words) - MOST_WORDS
    return f", its first {MOST_WORDS} words of {len(words)}" if more > 0 else ""


def _show_locked(axes: Any, shown: ShownProduct) -> None:
    """The photograph, its locked square framed; what lies outside of the photograph has the fill colour."""
    axes.set_title(f"{shown.name}, locked", fontsize=9, parse_math=False, pad=3)
    if shown.photograph is None:
        axes.text(0.5, 0.5, "cannot be read", ha="center", fontsize=9)
        return
    pixels, square = shown.photograph.pixels, shown.photograph.square
    height, width = pixels.shape[:2]
    place, side = (square.left, square.top), square.side
    axes.add_patch(Rectangle(place, side, side, facecolor=np.array(square.fill) / 255, linewidth=0, zorder=0))
    axes.imshow(pixels, extent=(0, width, height, 0), zorder=1)
    axes.add_patch(Rectangle(place, side, side, fill=False, edgecolor=MARK, linewidth=1.6, zorder=2))
    edge = 0.02 * max(width, height, side)
    axes.set(xlim=(min(0, square.left) - edge, max(width, square.left + side) + edge),
             ylim=(max(height, square.top + side) + edge, min(0, square.top) - edge), aspect="equal")


def _show_donor(axes: Any, shown: ShownProduct, tasks: Sequence[KaleidoTask]) -> None:
    """The photograph that the plan's first swap took a patch of."""
    swaps = [rule for rule in shown.drawn.tasks if rule.effect == "swap"]
    if swaps and (donor := int(shown.drawn.donors[shown.row, 0])) != NONE:
        title = next(task.title for task in tasks if task.grid == swaps[0].grid)
        axes.imshow(shown.images[donor].numpy())
        axes.set_title(f"the {title}'s donor", fontsize=9, pad=3)
