"""A measure is a row: one that only the table knows stands in eval.json, the headline and report.html."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kaleido_fast.config import Config, load_run_config
from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from kaleido_fast.report.html import write_report
from kaleido_fast.tasks.evaluate import evaluate, evaluate_run
from kaleido_fast.tasks.heldout import HeldOut, SplitRole
from kaleido_fast.tasks.measure import Examples, Measure, Measured, Numbers
from kaleido_fast.tasks.measures import MEASURES, headline, measures_in
from kaleido_fast.tasks.products import Products
from kaleido_fast.tasks.report_parts import Answer, Card, Example, Heading, Picture, Section, Table
from kaleido_fast.tasks.settings import EvalSettings


def _samples(role: SplitRole, products: Products, settings: EvalSettings) -> np.ndarray:
    return np.array([1, 3]) if role == "validation" else np.empty(0, np.int64)


def _measure(heldout: HeldOut) -> Measured:
    """How far two photographs of the validation split lie apart; the other measures ask for none of either but the first
    of a product."""
    split = heldout.split("validation")
    outputs = split.encoder.pooled(np.array([1, 3]), None)
    numbers = {"apart": {"distance": float((outputs[0] - outputs[1]).norm()), "products": len(split.products)}}
    batch = next(split.batches(np.array([1]), photographs=True))
    stream = io.BytesIO()
    Image.fromarray(batch.images[0].numpy()).save(stream, "PNG")
    picture = base64.b64encode(stream.getvalue()).decode()
    return Measured(numbers, {"apart": ["a sixth <sense>"]}, {"apart-1": picture})


def _headline(numbers: Numbers) -> str:
    return f"two photographs {numbers['apart']['distance']:.3f} apart"


def _section(numbers: Numbers) -> Section:
    return Section("How far apart", "Two photographs of the validation split.", [
        Heading("By hand"), Table(["", "distance"], [["1 and 3", f"{numbers['apart']['distance']:.5f}"]])])


def _examples(examples: Examples) -> Section:
    picture = Picture(base64.b64decode(examples["pictures"]["apart-1"]), "png", "photograph 1")
    return Section("Photographs apart", "", [
        picture, Example(picture, "no score", [Answer(text, True) for text in examples["apart"]])])


APART = Measure(
    keys=("apart",), measure=_measure, headline=_headline, section=_section, samples=_samples, examples=_examples,
    cards=lambda numbers: [Card("distance", f"{numbers['apart']['distance']:.4f}", "of two photographs")])


def test_a_measure_from_outside_is_measured_and_shown(
    small_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    before = evaluate_run(small_run, load_run_config(small_run))
    capsys.readouterr()
    monkeypatch.setitem(MEASURES, "apart", APART)
    after = evaluate_run(small_run, load_run_config(small_run))
    distance = after["apart"]["distance"]
    assert distance > 0 and after["apart"]["products"] > 0
    assert {key: value for key, value in after.items() if key != "apart"} == before
    assert json.loads((small_run / "eval.json").read_text()) == after
    assert f"two photographs {distance:.3f} apart" in capsys.readouterr().out
    assert f"two photographs {distance:.3f} apart" in write_report(small_run)
    page = (small_run / "report.html").read_text()
    for shown in ("<h2>How far apart</h2>", "<h3>By hand</h3>", f"<td>{distance:.5f}</td>", f"<b>{distance:.4f}</b>",
                  'a sixth &lt;sense&gt;</div>', 'alt="photograph 1"', "<h2>What it finds</h2>"):
        assert shown in page, shown


def test_a_run_may_be_measured_by_one_measure_alone(small_run: Path) -> None:
    """As a downstream task is: what no measure asks for is not opened."""
    report = evaluate_run(small_run, load_run_config(small_run), measures={"apart": APART})
    assert set(report) == {"checkpoint", "apart", "split", "data_fingerprint", "broken"}
    line = write_report(small_run, {"apart": APART})
    assert line.endswith(_headline(report))
    assert "Retrieval" not in (small_run / "report.html").read_text()


def test_splits_are_opened_when_a_measure_asks(
    small_model: KaleidoBertModel, small_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[SplitRole] = []
    real = HeldOut.split
    monkeypatch.setattr(HeldOut, "split", lambda heldout, role: opened.append(role) or real(heldout, role))
    evaluate(small_model, small_config, {"apart": APART})
    assert opened == ["validation"]


def test_no_key_has_two_owners() -> None:
    keys = [key for measure in MEASURES.values() for key in (*measure.keys, *measure.further)]
    assert len(set(keys)) == len(keys)
    assert not set(keys) & {"checkpoint", "split", "data_fingerprint", "broken"}


def test_a_measure_writes_the_keys_of_its_row(small_model: KaleidoBertModel, small_config: Config) -> None:
    wrong = Measure(keys=("other",), measure=_measure, headline=_headline, section=_section, samples=_samples)
    with pytest.raises(AssertionError, match=r"wrong wrote \['apart'\], its row names \('other',\) and \(\)"):
        evaluate(small_model, small_config, {"wrong": wrong})


def test_a_measure_that_a_file_lacks_is_not_shown() -> None:
    numbers = {"tasks": {"rotation": 0.5, "grey_to_color": 1.0}, "tasks_level_alone": {}, "tasks_samples": 3}
    assert measures_in(numbers) == [MEASURES["kaleido_tasks"]]
    assert headline(numbers) == "rotation 50.0 %"
    known = "retrieval, full_set, recognition, kaleido_tasks"
    with pytest.raises(ValueError, match=f"eval.json: holds the figures of none of {known}; run"):
        headline({"checkpoint": "step-1"})


def test_tasks_are_shown_by_their_titles() -> None:
    measured = {"rotation": 0.5, "grey_to_color": 1.0}
    (table,) = MEASURES["kaleido_tasks"].section({"tasks": measured, "tasks_level_alone": measured, "tasks_samples": 3}).parts
    assert [row[0] for row in table.rows] == ["rotation", "grey to colour"]
