"""Curves: the running mean by hand, and that a picture shows what it was given."""

import io

import numpy as np
import pytest
from PIL import Image

from kaleido_fast.report.curves import curve_png, running_mean

LINES = [{"step": step, "losses": {"itm": 0.7 - step / 1000}} for step in range(0, 500, 10)]
VALIDATION = [{"step": 100, "losses": {"itm": 0.65}}, {"step": 300, "losses": {"itm": 0.5}}]


def _pixels(*inputs, **options) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(curve_png("itm", "losses", *inputs, **options))).convert("RGB"))


def test_running_mean_by_hand() -> None:
    assert running_mean(np.array([1.0, 2.0, 3.0, 10.0]), 2).tolist() == pytest.approx([1.0, 1.5, 2.5, 6.5])
    assert running_mean(np.array([]), 3).tolist() == []


def test_validation_and_chance_are_drawn() -> None:
    plain, more, chance = _pixels(LINES, []), _pixels(LINES, VALIDATION), _pixels(LINES, [], chance=0.6)
    assert (plain != more).any()
    assert (plain != chance).any()


def test_a_measure_without_lines_is_an_empty_plot() -> None:
    assert _pixels([], []).shape == _pixels(LINES, []).shape
