"""Curves of a run, one small picture a measure: training and validation over the steps."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kaleido_fast.report.png import png

TRAIN_COLOUR, VALIDATION_COLOUR, CHANCE_COLOUR = "#3b6ea5", "#c8553d", "#8a8f98"
SIZE_INCHES, DOTS_PER_INCH = (3.4, 2.3), 144
SMOOTHED_SHARE = 1 / 25  # of the logged lines, in the running mean that is drawn over the single values


def curve_png(
    name: str,
    kind: str,
    training: Sequence[dict[str, Any]],
    validation: Sequence[dict[str, Any]],
    chance: float | None = None,
) -> bytes:
    """A PNG of one measure, line[kind][name] of each line that has it, over line["step"].

    Args:
        kind: "losses" or "accuracy".
        training, validation: lines with "step"; drawn as values and running mean, and as points.
        chance: a dashed line at what guessing reaches.
    """
    figure = Figure(figsize=SIZE_INCHES, dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    steps, values = _series(training, kind, name)
    width = max(1, round(len(values) * SMOOTHED_SHARE))
    axes.plot(steps, values, color=TRAIN_COLOUR, alpha=0.3, linewidth=0.8)
    axes.plot(steps, running_mean(values, width), color=TRAIN_COLOUR, linewidth=1.5, label="training")
    steps, values = _series(validation, kind, name)
    if len(steps):
        axes.plot(
            steps, values, "o-", color=VALIDATION_COLOUR, markersize=3, linewidth=1.2, label="validation"
        )
    if chance is not None:
        axes.axhline(chance, color=CHANCE_COLOUR, linewidth=0.9, linestyle="dashed", label="chance")
    _dress(axes)
    return png(figure)


def running_mean(values: np.ndarray, width: int) -> np.ndarray:
    """(n,): the mean of each value and up to `width` - 1 before it."""
    if not len(values):
        return values
    sums = np.concatenate([[0.0], np.cumsum(values)])
    last = np.arange(1, len(values) + 1)
    first = np.maximum(last - width, 0)
    return (sums[last] - sums[first]) / (last - first)


def _series(lines: Sequence[dict[str, Any]], kind: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    points = [(line["step"], line[kind][name]) for line in lines if name in line.get(kind, {})]
    array = np.array(points, np.float64).reshape(-1, 2)
    return array[:, 0], array[:, 1]


def _dress(axes: Any) -> None:
    axes.grid(color="#e6e8eb", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, colors="#4a4f57", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel("step", fontsize=8, color="#4a4f57")
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color("#c9cdd3")
    axes.legend(fontsize=7, frameon=False)
