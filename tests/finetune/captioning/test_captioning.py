"""Captioning from the command line: trained, measured, shown."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from kaleido_fast.cli import main
from kaleido_fast.data.shards.split import Split
from kaleido_fast.finetune.captioning.scores import caption_scores
from kaleido_fast.finetune.captioning.text import as_text
from kaleido_fast.finetune.finetune import finetune
from kaleido_fast.report.html import write_report
from tests.finetune.conftest import finetune_config


@pytest.fixture(scope="module")
def evaluated(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """A run fine-tuned for captions in six steps, evaluated; and a line for each product."""
    run = tmp_path_factory.mktemp("captioning") / "run"
    assert finetune(finetune_config(tiny_shards, run, "finetune.task=captioning", "caption.max_tokens=6",
                                    "train.learning_rate=3.0e-3")) == 0
    lines = run.parent / "products.jsonl"
    with pytest.MonkeyPatch.context() as without_java:  # METEOR alone takes half a minute to start
        without_java.setattr(shutil, "which", lambda name: None)
        assert main(["evaluate", str(run), "eval.split=train", "--per-sample", str(lines)]) == 0
    return run, [json.loads(line) for line in lines.read_text().splitlines()]


def test_captions_are_scored_and_shown(
    evaluated: tuple[Path, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    run, lines = evaluated
    numbers = json.loads((run / "eval.json").read_text())["captioning"]
    assert numbers["products"] == len(lines) and numbers["settings"]["max_tokens"] == 6
    assert all({"id", "caption", "reference"} <= line.keys() for line in lines)
    scored = [line for line in lines if line["reference"]]
    scores = caption_scores([line["caption"] for line in scored], [line["reference"] for line in scored])
    assert {name: numbers[name] for name in scores} == scores
    write_report(run)
    page = (run / "report.html").read_text()
    assert "Captions beside references" in page and "BLEU-4" in page


def test_decoding_goes_by_the_evaluation(
    evaluated: tuple[Path, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    run = evaluated[0].parent / "again"
    shutil.copytree(evaluated[0], run)
    assert main(["evaluate", str(run), "eval.split=train", "caption.beam=1", "caption.max_tokens=400"]) == 0
    settings = json.loads((run / "eval.json").read_text())["captioning"]["settings"]
    assert settings["beam"] == 1 and settings["max_tokens"] < 400
    assert f"captions end at {settings['max_tokens']} word pieces" in capsys.readouterr().out
    for override, sentence in (("caption.objective=next", "was trained with masked"),
                               ("eval.precision=bf16", "captions are written in fp32")):
        assert main(["evaluate", str(run), "eval.split=train", override]) != 0
        assert sentence in capsys.readouterr().err


def test_captions_of_the_api_and_of_the_command_are_evaluations(
    evaluated: tuple[Path, list[dict[str, Any]]], tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, lines = evaluated
    expected = {line["id"]: line["caption"] for line in lines}
    out = tmp_path / "captions.jsonl"
    assert main(["export", str(run), "--out", str(tmp_path / "export")]) == 0
    assert main(["caption", str(tmp_path / "export"), "--shards", str(tiny_shards), "--split", "train", "--out", str(out)]) == 0
    written = [json.loads(line) for line in out.read_text().splitlines()]
    assert {line["id"]: line["caption"] for line in written if line["id"] in expected} == expected
    whole = out.read_bytes()
    out.write_bytes(whole[: len(whole) // 2])  # a kill in the middle of a line
    assert main(["caption", str(run), "--shards", str(tiny_shards), "--split", "train", "--out", str(out)]) == 0
    missing = len(written) - whole[: len(whole) // 2].count(b"\n")
    assert out.read_bytes() == whole and f"{missing:,} captions" in capsys.readouterr().out
    (tmp_path / "images").mkdir()
    split = Split.open(tiny_shards, "train")
    (tmp_path / "images" / "a.jpg").write_bytes(split.read(0))
    (tmp_path / "images" / "b.jpg").write_bytes(b"no picture")
    assert main(["caption", str(run), "--images", str(tmp_path / "images"), "--out", str(tmp_path / "x.jsonl")]) == 0
    assert [json.loads(line)["id"] for line in (tmp_path / "x.jsonl").read_text().splitlines()] == ["a.jpg"]
    said = capsys.readouterr()
    assert "b.jpg: left out: " in said.out + said.err and "1 photographs cannot be read" in said.out


def test_a_model_that_writes_no_captions_says_so(
    category_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["caption", str(category_run), "--images", str(tmp_path), "--out", str(tmp_path / "x.jsonl")]) == 2
    assert "this model writes no captions" in capsys.readouterr().err


def test_the_loss_falls(evaluated: tuple[Path, list[dict[str, Any]]]) -> None:
    lines = [json.loads(line) for line in (evaluated[0] / "metrics.jsonl").read_text().splitlines()]
    losses = [line["losses"]["captioning"] for line in lines if "losses" in line]
    assert losses[-1] < losses[0] - 0.05


def test_pieces_make_words() -> None:
    assert as_text([1, 2, 0], ("a", "black", "##ish")) == "blackish a"


def test_scores_of_equal_and_of_other_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    texts = ["black cotton shirt for men", "red dress with long sleeves", "white running shoes for women"]
    right, wrong = caption_scores(texts, texts), caption_scores(texts[1:] + texts[:1], texts)
    assert right["bleu_4"] == pytest.approx(1) and right["rouge_l"] == pytest.approx(1) and right["cider"] > 9
    assert wrong["bleu_4"] < 0.1 and wrong["rouge_l"] < 0.3 and wrong["cider"] < 1
    assert "meteor" not in right and right["tokenizer"].startswith("plain")
