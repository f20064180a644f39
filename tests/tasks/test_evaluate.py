"""evaluate, end to end on small shards with a model of random weights."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from kaleido_fast.config import Config, load_run_config
from kaleido_fast.data.shards.split import Split
from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from kaleido_fast.report.html import write_report
from kaleido_fast.settings import as_yaml, check_sections
from kaleido_fast.tasks.evaluate import evaluate, evaluate_run
from kaleido_fast.tasks.settings import EvalSettings


@pytest.fixture(scope="module")
def evaluated(small_model: KaleidoBertModel, small_config: Config) -> tuple[dict, dict]:
    return evaluate(small_model, small_config)


def test_eval_json_has_the_form_of_the_spec(evaluated: tuple[dict, dict], small_config: Config) -> None:
    report = json.loads(json.dumps(evaluated[0]))
    for direction in ("itr", "tir"):
        one = report[direction]
        recalls = [one[f"R@{k}"] for k in (1, 5, 10, 100)]
        assert recalls == sorted(recalls)
        assert all(0 <= value <= 1 for value in recalls)
        assert (one["queries"], one["draws"]) == (20, 2)
        assert 20 < one["candidates"] < 101  # the small split has too few
    for kind in ("category", "subcategory"):
        for given in ("image", "text", "both"):
            assert 0 <= report[kind][given]["macro_f1"] <= 1
            assert 0 <= report[kind][given]["accuracy"] <= 1
    tasks = {"rotation", "jigsaw", "camouflage", "grey_to_color", "blank_to_color"}
    assert set(report["tasks"]) == set(report["tasks_level_alone"]) == tasks
    assert report["tasks_samples"] == 40
    assert report["broken"] == {}


def test_the_probe_sees_colours_and_words(evaluated: tuple[dict, dict]) -> None:
    """The sub-category is the colour and the first word: even random weights keep them, so a wrong pairing of
    outputs and labels would show."""
    for given in ("image", "text", "both"):
        assert evaluated[0]["subcategory"][given]["accuracy"] > 0.6


def test_the_same_model_gives_the_same_figures(
    small_model: KaleidoBertModel, small_config: Config, evaluated: tuple[dict, dict]
) -> None:
    assert evaluate(small_model, small_config) == evaluated
    other = dataclasses.replace(small_config, eval=dataclasses.replace(small_config.eval, seed=1))
    assert evaluate(small_model, other)[0]["itr"] != evaluated[0]["itr"]


def test_examples_hold_their_pictures(evaluated: tuple[dict, dict], small_config: Config) -> None:
    examples = evaluated[1]
    assert len(examples["itr"]) == len(examples["tir"]) == 3
    for example in examples["itr"] + examples["tir"]:
        right = [one for one in example["top"] if one["right"]]
        assert [one["id"] for one in right] == [example["query"]["id"]]  # shown past rank 5 too
        assert [one["score"] for one in example["top"]] == sorted(
            (one["score"] for one in example["top"]), reverse=True
        )
        assert {one["picture"] for one in [example["query"], *example["top"]]} <= set(examples["pictures"])


def test_a_broken_photograph_is_named(small_model: KaleidoBertModel, small_config: Config, tmp_path: Path) -> None:
    shards = shutil.copytree(small_config.data.shards, tmp_path / "shards")
    split = Split.open(shards, "test")
    row = split.rows(np.array([5]))[0]
    with (shards / "test-000000.tar").open("r+b") as tar:
        tar.seek(int(row["offset"]) + 100)
        tar.write(b"\xff\x00\xff\x00")
    config = dataclasses.replace(
        small_config,
        data=dataclasses.replace(small_config.data, shards=str(shards), max_holes=0.1),
        eval=dataclasses.replace(small_config.eval, queries=60),
    )
    report, _ = evaluate(small_model, config)
    assert list(report["broken"]) == ["test sample 5"]


def test_a_run_is_evaluated_and_reported(
    small_run: Path,
    evaluated: tuple[dict, dict],
    capsys: pytest.CaptureFixture,
) -> None:
    report = evaluate_run(small_run, load_run_config(small_run, ["eval.draws=1"]))
    assert json.loads((small_run / "eval.json").read_text()) == report
    assert report["checkpoint"] == "step-00000001"
    assert report["itr"]["draws"] == 1
    assert report["tasks"] == evaluated[0]["tasks"]
    assert "ITR R@1" in capsys.readouterr().out
    assert [file.name for file in small_run.glob(".*")] == []  # nothing half-written is left
    write_report(small_run)
    page = (small_run / "report.html").read_text()
    assert f"{100 * report['itr']['R@10']:.1f} %" in page
    assert "a product under the kaleido tasks, and its words with their patches" in page


def test_what_cannot_be_evaluated_is_named(
    small_model: KaleidoBertModel, small_config: Config, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="no config.yaml, so not a run"):
        load_run_config(tmp_path)
    (tmp_path / "config.yaml").write_text(as_yaml(small_config))
    with pytest.raises(ValueError, match="no checkpoint yet"):
        evaluate_run(tmp_path, load_run_config(tmp_path))
    varlen = ["model.attention=varlen", "run.device=cuda", "train.precision=bf16"]
    with pytest.raises(ValueError, match="evaluated in fp32, model.attention=varlen computes in 16 bit; give model.attention"):
        evaluate_run(tmp_path, load_run_config(tmp_path, varlen))
    with pytest.raises(ValueError, match="no checkpoint yet"):
        evaluate_run(tmp_path, load_run_config(tmp_path, [*varlen, "model.attention=auto"]))


def test_another_vocabulary_is_refused(tiny_model: KaleidoBertModel, small_config: Config) -> None:
    with pytest.raises(
        ValueError,
        match=r"its vocabulary has \d+ ids, the model was trained on 91; give the shards of the run",
    ):
        evaluate(tiny_model, small_config)


def test_other_words_are_refused_however_many(
    small_model: KaleidoBertModel, small_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = dataclasses.replace(small_model.vocabulary, fingerprint="0" * 64)
    monkeypatch.setattr(small_model, "vocabulary", other)
    with pytest.raises(ValueError, match=r"its vocabulary has \d+ ids as the model's has, but other words"):
        evaluate(small_model, small_config)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"queries": 0}, "eval.queries=0 must be at least 1"),
        ({"examples": -1}, "eval.examples=-1 must be at least 0"),
        ({"batch_photographs": 20}, "eval.batch_photographs=20 must be a positive multiple of 16"),
        ({"probe_strengths": ()}, r"eval.probe_strengths=\[\] must be one or more"),
        (
            {"probe_strengths": (-1.0,)},
            r"eval.probe_strengths=\[-1.0\] must lie in 0..1,000,000,000",
        ),
    ],
)
def test_wrong_settings_are_named(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_sections(eval=EvalSettings(**values))
