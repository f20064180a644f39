"""ablate, from the command line: runs that train, a row that cannot be done, a second call that trains nothing anew."""

import json
from pathlib import Path

import pytest

from kaleido_fast.cli import main
from tests.places import REPO
from tests.small import MODEL

ROWS = str(REPO / "configs" / "ablations")


def arguments(shards: Path, out: Path, *more: str) -> list[str]:
    settings = [one for one in MODEL if not one.startswith(("model.itc_dim", "train.task_weights", "data.itm_negatives"))]
    return ["ablate", ROWS, "--out", str(out), "--seeds", "0", "--steps", "2", "--paper", "--only", "masking_2_guided",
            "scale_3_kaleido_locked", "tasks_1_none", "tasks_6_blank_to_color", *settings, f"data.shards={shards}",
            "train.micro_batch=16", "train.itc_block=16", "train.warmup_steps=1", "train.validate_every=1",
            "train.validation_samples=16", "eval.queries=4", "eval.kaleido_samples=16", "eval.probe_train=16",
            "eval.probe_test=16", "eval.probe_iterations=1", "eval.examples=1", *more]


@pytest.mark.slow
def test_rows_are_trained_once(tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = arguments(tiny_shards, tmp_path)
    assert main(given) == 0, capsys.readouterr()
    assert sorted(path.name for path in (tmp_path / "runs").iterdir() if path.is_dir()) == [
        "scale_3_kaleido_locked-seed0", "tasks_1_none-seed0"]  # all tasks are those of the locked row
    figures = json.loads((tmp_path / "ablations.json").read_text())
    guided, locked, none, whole = figures["rows"]
    assert guided["missing"].startswith("needs an alignment") and not guided["runs"]
    assert locked["runs"] == whole["runs"] and whole["compared_with"] == "tasks_1_none"
    (run,) = none["runs"].values()
    assert run["samples"] == 32 and len(run["curves"]["itm"]) == 2 and "rotation" not in run["curves"]
    assert {"sum_r", "itr R@1", "tir R@10"} <= run["measures"].keys() and "sum_r_itc" not in run["measures"]
    assert "AMLM + ITM" in (tmp_path / "ablations.md").read_text() and "<polyline" in (tmp_path / "ablations.html").read_text()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.json*")}
    assert main(given) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.json*")} == before
    capsys.readouterr()
    assert main([*given, "train.learning_rate=0.5"]) == 2
    assert "was made with other settings; give another --out" in capsys.readouterr().err


def test_arguments_are_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(tmp_path, tmp_path, "--at-once", "0")) == 2
    assert "--at-once=0 must be at least 1" in capsys.readouterr().err
