"""Fine-tuning under the loop: it goes on bit for bit, keeps the checkpoint that validation chose, starts from other runs."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from kaleido_fast.cli import main
from kaleido_fast.config import load_config
from kaleido_fast.finetune.finetune import finetune, prepare_config
from kaleido_fast.model.weights import load_weights
from kaleido_fast.training.checkpoint import chosen_checkpoint, newest_checkpoint
from tests.finetune.conftest import finetune_config
from tests.places import REPO

CATEGORY = "finetune.task=category"


def lines(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what the clock says."""
    timed = ("samples_per_s", "data_wait_share", "seconds")
    read = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in timed} for line in read]


def test_a_resumed_run_repeats_the_whole_one(category_run: Path, tiny_shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    config = finetune_config(tiny_shards, out, CATEGORY, "train.checkpoint_every=3")
    shutil.copytree(category_run, out)
    (out / "config.yaml").write_text((out / "config.yaml").read_text().replace(str(category_run), str(out)))
    checkpoints = out / "checkpoints"
    before = json.loads((newest_checkpoint(out) / "chosen.json").read_text())
    older = [path.name for path in sorted(checkpoints.glob("step-*")) if path.name != newest_checkpoint(out).name]
    (checkpoints / "latest").write_text(older[-1])  # as if the process had ended behind it
    assert finetune(config, resume=True) == 0
    assert lines(out) == lines(category_run)
    assert json.loads((newest_checkpoint(out) / "chosen.json").read_text()) == before
    first, second = (load_weights(newest_checkpoint(run) / "weights").state_dict() for run in (out, category_run))
    assert all(first[name].equal(second[name]) for name in second)


def test_the_checkpoint_that_validation_chose_stays(category_run: Path) -> None:
    reports = {line["step"]: line["validation"]["accuracy"]["category"] for line in lines(category_run) if "validation" in line}
    assert sorted(reports) == [2, 4, 6]
    best = min(step for step in reports if reports[step] == max(reports.values()))
    assert chosen_checkpoint(category_run).name == f"step-{best:08d}"


def test_label_names_lie_with_the_weights(category_run: Path, tiny_shards: Path) -> None:
    model = load_weights(chosen_checkpoint(category_run) / "weights")
    manifest = json.loads((tiny_shards / "manifest.json").read_text())
    assert model.finetuned is not None and model.finetuned.task == "category"
    assert list(model.finetuned.labels) == manifest["categories"]
    assert model.classifier is not None and model.classifier.weight.shape == (len(manifest["categories"]), 32)


def test_it_takes_the_shape_of_the_model_it_starts_from(category_run: Path, tiny_shards: Path, tmp_path: Path) -> None:
    overrides = ["finetune.task=subcategory", f"init.weights={category_run}", f"data.shards={tiny_shards}",
                 f"run.out={tmp_path / 'run'}", "train.steps=1", "train.micro_batch=16", "train.warmup_steps=1"]
    config, changed = prepare_config(load_config(REPO / "configs" / "finetune" / "demo.yaml", overrides))
    assert {"model.hidden=32", "model.layers=1", "data.image_size=60", "kaleido.patch_size=12"} <= set(changed)
    assert finetune(config) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["picked"]["init"] == f"{category_run}: all weights, a new optimizer; its classifier starts anew"


@pytest.mark.parametrize(("more", "message"), [
    (["finetune.task=colour"], "finetune.task=colour: no such task; give task=NAME with one of category, subcategory"),
    ([], "finetune.task: not given; give task=NAME with one of category, subcategory"),
    ([CATEGORY, "init.weights="], "finetune: init.weights is not given; name the folder of a run or of an exported model, or "
                                  "init.weights=random to learn the task from nothing"),
    ([CATEGORY, "init.weights=/nowhere"], "init.weights=/nowhere: no readable model.json there; give a folder that"),
])
def test_what_cannot_start_says_why(tiny_shards: Path, tmp_path: Path, more: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        finetune_config(tiny_shards, tmp_path, *more)


def test_pretraining_has_no_task(tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", str(REPO / "configs" / "demo.yaml"), "task=category", f"run.out={tmp_path / 'run'}"]) == 2
    assert "finetune.task=category: pre-training has no task; run `kaleido-fast finetune`, or leave it out" in \
        capsys.readouterr().err
