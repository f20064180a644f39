"""`data show`: statistics of shards and a sheet of locked photographs, each framed by its fill colour."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from kaleido_fast.authors.statistics import describe_features
from kaleido_fast.data.catalogue.locking import Lock, crop_locked
from kaleido_fast.data.check.statistics import describe_shards, split_statistics
from kaleido_fast.data.shards.manifest import Manifest
from kaleido_fast.data.shards.split import BrokenSample, Split
from kaleido_fast.report.png import png

COLUMNS, ROWS = 10, 6
SIDE = 160  # pixels of a picture on the sheet
FRAME = 0.07  # of the fill colour around a picture, in picture sides
INCHES_A_CELL, DOTS_PER_INCH = 1.25, 150
TITLE_LETTERS = 16
LINE = "#9aa1ab"  # around the frame


@dataclass(frozen=True, slots=True)
class Locked:
    """One photograph as the sheet shows it."""

    title: str
    pixels: np.ndarray  # (SIDE, SIDE, 3) uint8, the locked square
    fill: tuple[int, int, int]


def show_shards(folder: Path, out: Path) -> str:
    """Write a contact sheet of the shards' first split that has photographs; returns the statistics as text.

    Shards with stored features have no photographs: the statistics are theirs, and nothing is written.

    Raises:
        ValueError: no shards there, or tables that cannot be read.
    """
    manifest = Manifest.read(folder)
    splits = [Split.open(folder, name) for name, entry in manifest.splits.items() if sum(entry.samples)]
    if not splits:
        raise ValueError(f"{folder}: no split has a sample")
    if manifest.features is not None:
        return f"{describe_features(folder, manifest, splits)}\nno contact sheet: there are no photographs"
    text = describe_shards(folder, manifest, [split_statistics(split) for split in splits])
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(contact_sheet(spread_samples(splits[0])))
    return f"{text}\ncontact sheet of the {splits[0].name} split: {out}"


def spread_samples(split: Split) -> list[Locked]:
    """Photographs that lie evenly through a split, as many as a sheet has room for."""
    count = min(COLUMNS * ROWS, split.num_samples)
    samples = np.arange(count) * split.num_samples // count
    rows = split.rows(samples)
    return [locked_photograph(split, int(sample), row) if usable
            else Locked(f"sample {sample}: broken", _cross(), (238, 238, 238))
            for sample, row, usable in zip(samples, rows, split.plausible(rows), strict=True)]


def contact_sheet(photographs: list[Locked]) -> bytes:
    """A PNG of the photographs in rows; the frame around each is its fill colour, so that a wrong one is seen."""
    rows = -(-len(photographs) // COLUMNS)
    figure = Figure(figsize=(COLUMNS * INCHES_A_CELL, rows * (INCHES_A_CELL + 0.2)), dpi=DOTS_PER_INCH, layout="constrained")
    grid = figure.subplots(rows, COLUMNS, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, photograph in zip(grid.flat, photographs, strict=False):
        _show(axes, photograph)
    return png(figure)


def _show(axes: Axes, photograph: Locked) -> None:
    whole = 1 + 2 * FRAME
    colour = np.array(photograph.fill) / 255
    axes.add_patch(Rectangle((-FRAME, -FRAME), whole, whole, facecolor=colour, edgecolor=LINE, linewidth=0.9, zorder=0))
    axes.imshow(photograph.pixels, extent=(0, 1, 1, 0), zorder=1)
    axes.set(xlim=(-FRAME, 1 + FRAME), ylim=(1 + FRAME, -FRAME), aspect="equal")
    axes.set_title(photograph.title, fontsize=7, pad=3, parse_math=False)  # an id may hold a dollar


def locked_photograph(split: Split, sample: int, row: np.void) -> Locked:
    """The locked square of a sample; a cross where it cannot be read."""
    title = split.products["id"][row["product"]].decode()
    title = title if len(title) <= TITLE_LETTERS else title[: TITLE_LETTERS - 1] + "…"
    if row["photo"]:
        title += f" ({row['photo']})"
    red, green, blue = (int(value) for value in row["fill"])
    fill = red, green, blue
    square = Lock(int(row["left"]), int(row["top"]), int(row["side"]), fill)
    try:
        pixels = np.asarray(Image.open(io.BytesIO(split.read(sample)), formats=["JPEG"]).convert("RGB"))
    except (BrokenSample, OSError, SyntaxError):
        return Locked(f"{title}: broken", _cross(), fill)
    return Locked(title, np.asarray(Image.fromarray(crop_locked(pixels, square)).resize((SIDE, SIDE))), fill)


def _cross() -> np.ndarray:
    pixels = np.full((SIDE, SIDE, 3), 238, np.uint8)
    line = np.arange(SIDE)
    pixels[line, line] = pixels[line, SIDE - 1 - line] = (200, 60, 60)
    return pixels
