"""Pre-training with contrast: resume bit for bit, the store, accumulation, parity, and what is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from kaleido_fast.bench.stored_features import stored_losses
from kaleido_fast.config import Config, build_config
from kaleido_fast.parity.drawn_batch import batch_of
from kaleido_fast.parity.run import DEMO, check_parity
from kaleido_fast.training.build import build_step
from kaleido_fast.training.pretrain import pretrain
from kaleido_fast.training.stores.encode import encode
from tests.small import small_config

ITC = ("model.itc_dim=16", "train.itc_block=16", "train.task_weights.itc=2")


def _config(shards: Path, out: Path, *more: str) -> Config:
    return small_config(shards, out, "train.validate_every=2", *ITC, *more)


def _lines(out: Path) -> list[dict]:
    keys = ("step", "losses", "accuracy", "grad_norm", "validation", "temperature")
    return [{key: line.get(key) for key in keys} for line in map(json.loads, (out / "metrics.jsonl").read_text().splitlines())]


def test_a_resumed_run_equals_an_undisturbed_one_and_the_loss_is_logged(tiny_shards: Path, tmp_path: Path) -> None:
    more = ("train.steps=6", "train.checkpoint_every=3", "model.dropout=0.1", "train.keep_checkpoints=5", "train.log_every=2")
    for name in ("whole", "cut"):
        assert pretrain(_config(tiny_shards, tmp_path / name, *more)) == 0
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "step-00000006")
    (tmp_path / "cut" / "checkpoints" / "latest").write_text("step-00000003")
    assert pretrain(_config(tiny_shards, tmp_path / "cut", *more), resume=True) == 0
    whole = _lines(tmp_path / "whole")
    assert whole == _lines(tmp_path / "cut")
    logged = [line for line in whole if line["losses"]]
    assert all(0 < line["losses"]["itc"] < 5 and 0 <= line["accuracy"]["itc"] <= 1 for line in logged)
    assert all(0.06 < line["temperature"] < 0.08 for line in logged)
    assert logged[0]["temperature"] != logged[-1]["temperature"]
    assert all("itc" in line["validation"]["losses"] for line in whole if line["validation"])


def test_accumulation_gives_the_losses_of_the_larger_batch_under_one_block(tiny_shards: Path, tmp_path: Path) -> None:
    pretrain(_config(tiny_shards, tmp_path / "one", "train.steps=3", "train.micro_batch=32"))
    pretrain(_config(tiny_shards, tmp_path / "two", "train.steps=3", "train.micro_batch=16", "train.accumulation=2"))
    for a, b in zip(_lines(tmp_path / "one"), _lines(tmp_path / "two"), strict=True):
        if a["losses"]:
            assert a["losses"] == pytest.approx(b["losses"], rel=1e-4)
            assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-3)


def test_the_store_gives_the_losses_of_computed_features(tiny_shards: Path, tmp_path: Path) -> None:
    store = (f"data.store={tmp_path / 'store'}", "data.store_dtype=fp32")
    config = _config(tiny_shards, tmp_path / "run", *store, "train.steps=1")
    assert encode(config) == 0
    differences = stored_losses(config, batches=2)["losses"]
    assert differences["itc"] < 1e-5 and set(differences) > {"total", "itm"}


@pytest.mark.parametrize(("more", "message"), [
    (["model.itc_dim=0"], r"train.task_weights: itc needs model.itc_dim above 0, found 0"),
    (["train.task_weights.itc=0"], "model.itc_dim=16: nothing trains these embeddings, found no train.task_weights.itc"),
    (["train.itc_block=24"], r"train.itc_block.*multiple of 16"),
])
def test_settings_that_do_not_go_together_are_refused(tiny_shards: Path, tmp_path: Path, more: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _config(tiny_shards, tmp_path / "run", *more)


def test_a_block_must_fill_the_micro_step(tiny_shards: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="train.itc_block=64 must divide train.micro_batch=16 times 1 workers, 16 samples"):
        pretrain(_config(tiny_shards, tmp_path / "run", "train.steps=1", "train.itc_block=64"))


def test_the_block_is_fixed_on_resume(tiny_shards: Path, tmp_path: Path) -> None:
    batch = "train.micro_batch=32"
    assert pretrain(_config(tiny_shards, tmp_path / "run", "train.steps=1", batch)) == 0
    with pytest.raises(ValueError, match="train.itc_block"):
        pretrain(_config(tiny_shards, tmp_path / "run", "train.steps=2", batch, "train.itc_block=32"), resume=True)


def test_rows_are_bf16_between_layers_where_products_are() -> None:
    """The texts alone too: one wider part would make all rows as wide."""
    config = build_config(DEMO | {"model": DEMO["model"] | {"itc_dim": 8},
                                  "train": DEMO["train"] | {"itc_block": 32, "task_weights": {"itc": 2.0}}})
    batch, manifest = batch_of(config, torch.device("cpu"))
    step, dtypes = build_step(config, manifest), []
    step.model.encoder.register_forward_pre_hook(lambda _, inputs: dtypes.append(inputs[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        step(batch, step.count(batch), step.count(batch), None)
    assert dtypes == [torch.bfloat16]


@pytest.mark.parametrize("tasks", [None, ["jigsaw"]])
def test_both_paths_agree(tasks: list[str] | None) -> None:
    """Every loss, gradient and weight of ten steps; with the turned level and without."""
    values = {
        "data": {"image_size": 60, "max_tokens": 12}, "kaleido": {"patch_size": 8} | ({"tasks": tasks} if tasks else {}),
        "model": {**DEMO["model"], "hidden": 64, "heads": 4, "layers": 1, "intermediate": 128, "itc_dim": 16,
                  "initializer_range": 0.2},  # less, and all first rows look alike: what is left of a gradient is rounding,
        "train": {**DEMO["train"], "micro_batch": 32, "itc_block": 16, "task_weights": {"itc": 2.0}}, "run": {"device": "cpu"}}
    report = check_parity(build_config(values))
    names = {row.quantity for row in report.rows}
    assert report.holds, [row for row in report.rows if not row.holds]
    assert {"loss itc", "contrast photographs", "contrast texts", "gradient contrast"} <= names
