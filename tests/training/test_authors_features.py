"""configs/authors.yaml on shards made of the golden feature file: it trains, resumes exactly, and refuses what cannot be."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kaleido_fast.authors.import_tf import ImportOptions, import_tf
from kaleido_fast.authors.prepare_tsv import KaleidoTsvOptions, prepare_kaleido_tsv
from kaleido_fast.config import Config, load_config, load_run_config
from kaleido_fast.data.store.feature_store import ENDING, HEADER_BYTES
from kaleido_fast.model.task_table import TASKS, KaleidoTask
from kaleido_fast.options import message_with_flags
from kaleido_fast.tasks.evaluate import evaluate_run
from kaleido_fast.training.pretrain import pretrain
from tests.places import CONFIGS, GOLDEN, REPO

SMALL = ["run.device=cpu", "model.patch_features=96", "model.layers=1", "model.hidden=32", "model.heads=4",
         "model.intermediate=64", "train.micro_batch=16", "train.steps=6", "train.warmup_steps=2", "train.log_every=1",
         "train.validate_every=3", "train.validation_samples=16", "train.checkpoint_every=3", "train.keep_checkpoints=5"]
KEYS = ("step", "samples", "digest", "losses", "accuracy", "grad_norm", "learning_rate", "validation")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("authors") / "shards"
    prepare_kaleido_tsv(KaleidoTsvOptions((GOLDEN / "kaleido_bert_small.tsv",), out, processes=1))
    return out


def _overrides(shards: Path, out: Path, *more: str) -> list[str]:
    return [*SMALL, f"data.shards={shards}", f"run.out={out}", *more]


def _config(shards: Path, out: Path, *more: str) -> Config:
    return load_config(CONFIGS / "authors.yaml", _overrides(shards, out, *more))


def _trajectory(out: Path) -> list[dict]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: line.get(key) for key in KEYS} for line in lines]


def _back_to_step_3(out: Path) -> None:
    """What a run leaves that was killed between its checkpoints of steps 3 and 6."""
    shutil.rmtree(out / "checkpoints" / "step-00000006")
    (out / "checkpoints" / "latest").write_text("step-00000003")


def test_a_run_learns_and_resumes_exactly(shards: Path, tmp_path: Path) -> None:
    assert pretrain(_config(shards, tmp_path / "run")) == 0
    whole = _trajectory(tmp_path / "run")
    assert [line["step"] for line in whole if line["losses"]] == [1, 2, 3, 4, 5, 6]
    assert len(whole[0]["losses"]) == 8 and whole[0]["losses"]["total"] > whole[-2]["losses"]["total"]
    _back_to_step_3(tmp_path / "run")
    assert pretrain(_config(shards, tmp_path / "run"), resume=True) == 0
    assert _trajectory(tmp_path / "run") == whole
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["picked"]["features"] == "stored" and summary["data"]["features"]["num_features"] == 96
    assert summary["data"]["train_samples"] == 5 and summary["data"]["num_holes"] == 0
    with pytest.raises(ValueError, match="evaluate needs photographs; these shards hold the features of the authors' pretr"):
        evaluate_run(tmp_path / "run", load_run_config(tmp_path / "run"))


def test_a_run_starts_from_the_authors_weights(tmp_path: Path) -> None:
    """Their checkpoint and their feature file: the whole way of who goes on with their model."""
    words = ["[PAD]", *(f"[unused{number}]" for number in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]",
             *(f"word{number}" for number in range(104, 1000))]
    (tmp_path / "vocab.txt").write_text("".join(f"{word}\n" for word in words))
    options = KaleidoTsvOptions((GOLDEN / "kaleido_bert_small.tsv",), tmp_path / "shards", tmp_path / "vocab.txt", processes=1)
    prepare_kaleido_tsv(options)
    import_tf(ImportOptions(GOLDEN / "tf_checkpoint" / "model.ckpt-4", tmp_path / "imported"))
    shape = ["model.dropout=0", "model.attention_dropout=0", "model.layers=2", "model.hidden=64", "model.intermediate=128",
             "model.max_positions=80", "train.steps=1"]
    assert pretrain(_config(tmp_path / "shards", tmp_path / "run", *shape, f"init.weights={tmp_path / 'imported'}")) == 0
    with np.load(GOLDEN / "kaleido_bert_small.npz") as golden:
        theirs = float(golden["after/losses/total"])
    first = _trajectory(tmp_path / "run")[0]
    assert abs(first["losses"]["total"] - theirs) < 1.5 < abs(18 - theirs)  # of five of their six rows; 18 at random


def test_broken_features_are_holes_and_past_the_limit_stop_the_run(shards: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(shards, tmp_path / "broken")
    data = bytearray((broken / f"train-000000{ENDING}").read_bytes())
    data[HEADER_BYTES] ^= 1
    (broken / f"train-000000{ENDING}").write_bytes(data)
    with pytest.raises(ValueError, match="more than data.max_holes=0.01 allows; train sample 0: its features do not match"):
        pretrain(_config(broken, tmp_path / "stopped"))
    assert pretrain(_config(broken, tmp_path / "run", "data.max_holes=0.5", "train.steps=3")) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert list(summary["data"]["holes"]) == ["train sample 0"] and summary["progress"]["holes"] in (9, 10)  # 48 of 5


@pytest.mark.parametrize(("overrides", "message"), [
    (["model.features=computed", "model.patch_encoder=dct", "model.patch_features=0"],
     "shards: model.features=computed needs photographs; these shards hold the features of the authors' pretraining files"),
    (["model.patch_features=2048"], "model.patch_features=2048: the features of .*shards were made by the authors, with their "
                                    "texts and masks; set model.patch_features=96"),
    (["model.patch_encoder=dct", "model.patch_features=0"], "model.patch_encoder=dct: .*; set model.patch_encoder=none"),
    (["model.locations=unit"], "model.locations=unit: .*; set model.locations=pixels"),
    (["kaleido.num_grey=1"], "kaleido.num_grey=1: .*; set kaleido.num_grey=2"),
    (["kaleido.num_blank=4"], "kaleido.num_blank=4: .*; set kaleido.num_blank=3"),
    (["kaleido.grids=[1,2,3,4,5,2]"], "grids"),
    (["data.itm_hard_share=0.5"], "data.itm_hard_share=0.5: .*; set data.itm_hard_share=0"),
    (["data.max_tokens=40"], "data.max_tokens=40: the masked texts of .*shards are 64 wide"),
    (["data.alignment=truth"], "data.alignment=truth: .* has no such alignment, it has: none"),
    (["model.itc_dim=16", "train.task_weights.itc=2", "train.itc_block=16"],
     "train.task_weights.itc=2.0: .* made by the authors, with their texts and masks; set train.task_weights.itc=0"),
    (["data.field_dropout=0.1"], "data.field_dropout: the texts in .*shards have no fields; run prepare with field={...}"),
    (["data.field_shuffle=true"], "data.field_shuffle: the texts in .*shards have no fields; run prepare with field={...}"),
])
def test_settings_that_do_not_go_with_the_shards(overrides: list[str], message: str, shards: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message) as error:
        pretrain(_config(shards, tmp_path / "run", *overrides))
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


def test_a_task_that_the_authors_did_not_have_is_refused(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TASKS, "blank_nine", KaleidoTask("blank_nine", 3, "blank", 2))
    message = "kaleido.tasks: blank_nine: the features of .*shards were made by the authors, who had no such task; take it out"
    with pytest.raises(ValueError, match=message):
        pretrain(_config(shards, tmp_path / "run", "kaleido.tasks=[rotation, blank_nine]"))


def test_shards_of_photographs_have_no_stored_features(tiny_shards: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="these shards hold photographs and no stored features; set model.features=computed "
                                         "and another model.patch_encoder, or give shards that "
                                         "`prepare_kaleido_tsv` made") as met:
        pretrain(_config(tiny_shards, tmp_path / "run"))
    assert message_with_flags(met.value).endswith("give shards that `kaleido-fast prepare --from kaleido-tsv` made")


@pytest.mark.parametrize("layout", ["retrieval", "category"])
def test_other_layouts_have_no_plan(layout: str, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    prepare_kaleido_tsv(KaleidoTsvOptions((GOLDEN / f"kaleido_bert_small_{layout}.tsv",), out, processes=1))
    with pytest.raises(ValueError, match=f"shards: these shards hold the features of the authors' {layout} files, which have "
                                         "no masks and labels to pre-train on; give shards made of their pre-training files"):
        pretrain(_config(out, tmp_path / "run"))


def _two_workers(shards: Path, out: Path, *more: str) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "kaleido_fast",
               "pretrain", "configs/authors.yaml", *_overrides(shards, out), *more]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=300,
                          env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_two_workers_resume_exactly_and_learn_what_one_learns(shards: Path, tmp_path: Path) -> None:
    quiet = ["model.dropout=0", "model.attention_dropout=0"]
    _two_workers(shards, tmp_path / "run", *quiet)
    whole = _trajectory(tmp_path / "run")
    _back_to_step_3(tmp_path / "run")
    _two_workers(shards, tmp_path / "run", *quiet, "--resume", "auto")
    assert _trajectory(tmp_path / "run") == whole
    assert pretrain(_config(shards, tmp_path / "alone", *quiet, "train.accumulation=2")) == 0
    steps = [[line for line in lines if line["losses"]] for lines in (_trajectory(tmp_path / "alone"), whole)]
    assert len(steps[0]) == 6
    for one, two in zip(*steps, strict=True):
        assert one["digest"] == two["digest"] and one["losses"] == pytest.approx(two["losses"], rel=1e-5)
