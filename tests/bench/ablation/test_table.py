"""The table of an ablation, of figures that are known."""

import pytest

from kaleido_fast.bench.ablation.rows import Row
from kaleido_fast.bench.ablation.table import ablation_figures, as_html, as_markdown, require_seeds

ROWS = [Row("a1", "a", "first", "", ()), Row("a2", "a", "second", "", ()), Row("b1", "b", "alone", "alignment", ())]


def run(total: float, recall: float) -> dict:
    return {"measures": {"sum_r": total, "itr R@1": recall}, "samples": 64, "minutes": 1.0,
            "curves": {"itm": [[0.5, 0.7, 0.5], [1.0, 0.6, 0.6]], "rotation": [[0.5, 1.0, None], [1.0, 0.9, None]]}}


def test_mean_spread_and_difference() -> None:
    """Pairs of a seed differ by 10, 12 and 14: mean 12, standard error 2 / sqrt(3), interval 12 -+ 4.303 x 1.1547."""
    results = {"a1": {0: run(100, 0.1), 1: run(110, 0.2), 2: run(90, 0.3)},
               "a2": {0: run(110, 0.2), 1: run(122, 0.3), 2: run(104, 0.4)}}
    figures = ablation_figures(ROWS, results, {"b1": "needs an alignment"}, [0, 1, 2])
    first, second, alone = figures["rows"]
    assert first["difference"] is None and second["compared_with"] == "a1" and alone["runs"] == {}
    assert second["spread"]["sum_r"] == {"mean": 112.0, "min": 104, "max": 122}
    assert second["difference"]["sum_r"]["interval"] == pytest.approx([12 - 4.9686, 12 + 4.9686], abs=1e-3)
    lines = as_markdown(figures).splitlines()
    assert lines[0] == "| group | row | runs | itr R@1 | sum_r | sum_r: difference, 95 % interval |"
    assert lines[2] == "| a | first | 3 | 20.0 (10.0 to 30.0) | 100.0 (90.0 to 110.0) |  |"
    assert lines[3].endswith("| 112.0 (104.0 to 122.0) | +12.0 (+7.0 to +17.0) against a1, differs |")
    assert lines[4] == "| b | alone | 0 |  |  | needs an alignment |"
    page = as_html(figures)
    assert page.count("<polyline") == 18 and "itm: accuracy" in page and "rotation: accuracy" not in page


def test_seeds_that_one_row_lacks_are_not_compared() -> None:
    results = {"a1": {0: run(100, 0.1)}, "a2": {0: run(101, 0.1), 1: run(300, 0.1)}}
    second = ablation_figures(ROWS, results, {}, [0, 1])["rows"][1]
    assert second["difference"]["sum_r"] == {"mean": 1.0, "standard_error": None, "interval": None, "verdict": "underpowered"}


@pytest.mark.parametrize("seeds", [[], ["0", "0"], ["a"], [str(seed) for seed in range(11)]])
def test_wrong_seeds_are_named(seeds: list[str]) -> None:
    with pytest.raises(ValueError, match="seeds: found .*; give one to 10 different whole numbers"):
        require_seeds(seeds)
    assert require_seeds(["3", "1"]) == [3, 1]
