"""Slices of retrieval by hand: three queries, two draws; values of fields from shards; names that are refused; eval.json."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from kaleido_fast.config import Config
from kaleido_fast.data.catalogue.formats.csv_catalogue import CsvCatalogue
from kaleido_fast.data.catalogue.prepare import PrepareOptions, prepare
from kaleido_fast.data.shards.split import Split
from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from kaleido_fast.tasks.candidates import Draw
from kaleido_fast.tasks.evaluate import evaluate
from kaleido_fast.tasks.measures import MEASURES
from kaleido_fast.tasks.products import read_products
from kaleido_fast.tasks.report_parts import Heading, Table
from kaleido_fast.tasks.retrieval import Ranked, Retrieval
from kaleido_fast.tasks.slices import LISTED, check_slices, slice_parts, slice_values, sliced

COLOURS = np.array(["red", "red", "blue", "blue", ""], object)  # of five products


def _result() -> Retrieval:
    """Queries 0 (red), 2 (blue), 4 (no colour); the second has two candidates alone."""
    draw = Draw(np.array([0, 2, 4]), np.array([[0, 1, 2, 3], [2, 0, -1, -1], [4, 0, 1, 2]]), np.zeros(5, np.int64))
    itr = np.array([[3, 9, 1, 1], [5, 2, -np.inf, -np.inf], [0, 1, 2, 3]], np.float32)  # first: 1 (red), 2 (blue), 2
    tir = np.array([[3, 2, 1, 9], [2, 2, -np.inf, -np.inf], [9, 1, 2, 3]], np.float32)  # first: 3 (blue), 0 by tie (red), 4
    return Retrieval((Ranked(draw, itr),), (Ranked(draw, tir),))


def test_recalls_of_each_value_and_the_value_of_the_first() -> None:
    report = sliced(_result(), {"colour": COLOURS})["colour"]
    found = {of["value"]: (of["queries"], of["itr"]["R@1"], of["tir"]["R@1"], of["itr"]["R@10"]) for of in report["values"]}
    assert found == {"red": (1, 0.0, 0.0, 1.0), "blue": (1, 1.0, 0.0, 1.0), "(none)": (1, 0.0, 1.0, 1.0)}
    # Of the two queries with a colour: the first by image is red for red and blue for blue, by text blue for red, red for blue.
    assert report["first"] == {"queries": 2, "itr": 1.0, "tir": 0.0, "chance": (2 / 4 + 1 / 2) / 2}


def test_draws_count_together_and_rare_values_are_one_row() -> None:
    twice = Retrieval(*(side * 2 for side in (_result().itr, _result().tir)))
    assert [of["queries"] for of in sliced(twice, {"colour": COLOURS})["colour"]["values"]] == [2, 2, 2]
    count = LISTED + 5
    draw = Draw(np.arange(count), np.stack([np.arange(count), np.roll(np.arange(count), 1)], 1), np.zeros(count, np.int64))
    ranked = Ranked(draw, np.tile(np.float32([1, 0]), (count, 1)))
    many = sliced(Retrieval((ranked,), (ranked,)), {"kind": np.array([f"k{n:02}" for n in range(count)], object)})["kind"]
    assert len(many["values"]) == LISTED + 1
    assert many["values"][-1] == {"value": "(others)", "queries": 5, "itr": {"R@1": 1.0, "R@10": 1.0},
                                  "tir": {"R@1": 1.0, "R@10": 1.0}}


def test_nothing_is_said_of_a_first_answer_where_no_query_has_a_value() -> None:
    report = sliced(_result(), {"colour": np.full(5, "", object)})
    assert report["colour"]["first"] == {"queries": 0} and len(slice_parts(report)) == 2


def test_the_report_shows_them() -> None:
    heading, table, first = slice_parts(sliced(_result(), {"colour": COLOURS}))
    assert isinstance(heading, Heading) and heading.text == "By colour" and isinstance(table, Table)
    assert ["blue", "1", "100.0 %", "100.0 %", "0.0 %", "100.0 %"] in table.rows
    assert isinstance(first, Table) and first.rows == [["of 2 queries", "100.0 %", "0.0 %", "50.0 %"]]


@pytest.fixture(scope="module")
def parted(small_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small shards' catalogue with fields; the sub-category, which is the colour, is one of them."""
    out = tmp_path_factory.mktemp("parted") / "shards"
    catalogue = CsvCatalogue(small_shards.parent / "styles.csv", small_shards.parent / "images",
                             field=("title=productDisplayName", "colour=articleType"))
    prepare(PrepareOptions(catalogue, out, vocab=small_shards / "vocab.txt", processes=1))
    return out


def test_values_come_from_the_shards(parted: Path) -> None:
    split = Split.open(parted, "test")
    products = read_products(split, 16)
    values = slice_values(split, products, ["subcategory", "colour"], np.array([0, 3]))
    assert [values["colour"][k] for k in (0, 3)] == [values["subcategory"][k] for k in (0, 3)] and values["colour"][1] == ""
    assert set(values["subcategory"]) == {"red", "green", "blue", "brown"}


def test_names_that_the_shards_do_not_have(parted: Path, small_shards: Path) -> None:
    check_slices(Split.open(parted, "test"), ["category", "colour"])
    for folder, name, known in ((parted, "color", "category, subcategory, title, colour; "),
                                (small_shards, "colour", "category, subcategory; ")):
        with pytest.raises(ValueError, match=rf"eval\.slices={name}: .* has no such field, it can be sliced by {known}"):
            check_slices(Split.open(folder, "test"), [name])


def test_evaluate_writes_them_where_they_are_asked_for(
    parted: Path, small_config: Config, small_model: KaleidoBertModel
) -> None:
    config = dataclasses.replace(small_config, data=dataclasses.replace(small_config.data, shards=str(parted)),
                                 eval=dataclasses.replace(small_config.eval, slices=("category", "colour")))
    retrieval = {"retrieval": MEASURES["retrieval"]}
    numbers, _ = evaluate(small_model, config, retrieval)
    assert list(numbers["slices"]) == ["category", "colour"]
    for of in numbers["slices"].values():
        assert sum(value["queries"] for value in of["values"]) == 40  # two draws of 20
        for key in ("itr", "tir"):
            mean = sum(value["queries"] * value[key]["R@10"] for value in of["values"]) / 40
            assert mean == pytest.approx(numbers[key]["R@10"])
    titles = [part.text for part in MEASURES["retrieval"].section(numbers).parts if isinstance(part, Heading)]
    assert titles == ["By category", "By colour"]
    plain = dataclasses.replace(config, eval=small_config.eval)
    without, _ = evaluate(small_model, plain, retrieval)
    assert without == {key: value for key, value in numbers.items() if key != "slices"}
