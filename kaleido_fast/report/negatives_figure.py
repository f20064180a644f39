"""A product beside the negatives that its run has mined for it (SPEC 10): photographs and texts."""

import textwrap
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kaleido_fast.config import load_run_config
from kaleido_fast.data.shards.manifest import Manifest
from kaleido_fast.data.shards.split import BrokenSample, Split
from kaleido_fast.options import Option, OptionError
from kaleido_fast.report.contact_sheet import locked_photograph
from kaleido_fast.report.figures import find_product
from kaleido_fast.report.png import png
from kaleido_fast.training.checkpoint import newest_checkpoint
from kaleido_fast.training.mining.mined_negatives import NEGATIVES, read_negatives

COLUMNS, SHOWN = 5, 9
LETTERS, LINES = 28, 6  # of a text below its photograph
INCHES, TEXT_INCHES, DOTS_PER_INCH = 2.0, 1.25, 110
OWN = "#2f855a"


def explain_negatives(shards: Path, product_id: str | None, out: Path, run: Path) -> None:
    """Write a PNG of a product and up to 9 of its mined negatives, evenly spread over its list.

    Args:
        product_id: of the train split; its first product that has a list without it.
    Raises:
        ValueError: the run's newest checkpoint has no lists, or none for this product.
    """
    Manifest.read(shards).require_photographs(shards, "explain")
    split, config, checkpoint = Split.open(shards, "train"), load_run_config(run), newest_checkpoint(run)
    lists = read_negatives(checkpoint, split.num_products, config.data.mine_count)
    if lists is None:
        raise ValueError(f"{checkpoint}: no {NEGATIVES}, nothing was mined yet; expected a run with data.itm_negatives=mined "
                         "that is past its first data.mine_every epochs")
    product = _listed(lists, run) if product_id is None else _of_train(shards, product_id)
    negatives = lists[product][lists[product] >= 0]
    if not len(negatives):
        raise ValueError(f"{run}: product '{product_id}' has no mined negatives: it has no readable photograph, or its "
                         "sub-category has no other text")
    shown = negatives[np.arange(min(SHOWN, len(negatives))) * len(negatives) // min(SHOWN, len(negatives))]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(_figure(split, product, shown.tolist(), len(negatives)))


def _listed(lists: np.ndarray, run: Path) -> int:
    listed = np.flatnonzero(lists[:, 0] >= 0)
    if not len(listed):
        raise ValueError(f"{run}: no product has a mined negative: no sub-category has two products with different texts")
    return int(listed[0])


def _of_train(shards: Path, product_id: str) -> int:
    split, product = find_product(shards, product_id)
    if split.name != "train":
        raise OptionError(Option("id"), f"={product_id}: of the {split.name} split, and negatives are mined for those of the "
                          "train split")
    return product


def _figure(split: Split, product: int, negatives: list[int], count: int) -> bytes:
    rows = -(-(1 + len(negatives)) // COLUMNS)
    figure = Figure(figsize=(COLUMNS * INCHES, rows * (INCHES + TEXT_INCHES)), dpi=DOTS_PER_INCH)
    grid = figure.subplots(rows, COLUMNS, squeeze=False)
    figure.subplots_adjust(0.01, TEXT_INCHES / (INCHES + TEXT_INCHES) / rows, 0.99, 1 - 0.22 / (rows * (INCHES + TEXT_INCHES)),
                           0.05, (TEXT_INCHES + 0.2) / INCHES)
    for axes in grid.flat:
        axes.axis("off")
    for place, (axes, shown) in enumerate(zip(grid.flat, [product, *negatives], strict=False)):
        _show(axes, split, shown, "" if place else f", {len(negatives)} of its {count}")
    return png(figure)


def _show(axes: Axes, split: Split, product: int, behind: str) -> None:
    sample = int(split.products["first_sample"][product])
    photograph = locked_photograph(split, sample, split.rows(np.array([sample]))[0])
    try:
        text = str(split.record(sample)["text"])
    except BrokenSample as error:
        text = f"({error})"
    colour = OWN if behind else "black"
    axes.imshow(photograph.pixels)
    axes.set_title(photograph.title + behind, fontsize=8, pad=4, color=colour, parse_math=False)
    lines = textwrap.wrap(text, LETTERS, max_lines=LINES, placeholder=" …")
    axes.text(0.02, -0.03, "\n".join(lines), transform=axes.transAxes, va="top", fontsize=8, color=colour, parse_math=False)
