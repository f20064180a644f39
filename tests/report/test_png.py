"""A figure with letters that the font has not."""

import warnings

import pytest
from matplotlib.figure import Figure

from kaleido_fast.report.png import png


def _figure(title: str) -> Figure:
    figure = Figure(figsize=(2, 2))
    figure.suptitle(title)
    return figure


def test_letters_without_a_font_are_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert png(_figure("深红色 红")).startswith(b"\x89PNG")
        assert capsys.readouterr().err == "figure: 3 letters are drawn as boxes, the font has none for them\n"
        assert png(_figure("red")).startswith(b"\x89PNG")
    assert capsys.readouterr().err == ""


def test_other_warnings_are_heard() -> None:
    figure = _figure("red")
    figure.savefig = lambda *_, **__: warnings.warn("a strange thing", stacklevel=1)
    with pytest.warns(UserWarning, match="a strange thing"):
        png(figure)
