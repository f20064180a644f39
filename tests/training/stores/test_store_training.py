"""Training and evaluating from a store of photographs: the losses of the computed path, resume, holes, the same eval.json."""

import dataclasses
import gc
import json
import shutil
import threading
from pathlib import Path

import pytest
import torch

from benchmarks import stored_losses as program
from kaleido_fast.bench.stored_features import stored_losses
from kaleido_fast.config import Config, load_run_config
from kaleido_fast.data.batches import from_store
from kaleido_fast.data.shards.split import Split
from kaleido_fast.data.store import shard_stores
from kaleido_fast.data.store.feature_store import ENDING, HEADER_BYTES, FeatureStore
from kaleido_fast.data.store.row_format import STORE_DTYPES
from kaleido_fast.tasks.evaluate import evaluate_run
from kaleido_fast.training.pretrain import pretrain
from kaleido_fast.training.stores.encode import encode
from kaleido_fast.training.stores.open import open_source
from tests.places import DEMO
from tests.small import RUN, small_config

FOUR_STEPS = ("train.steps=4", "train.warmup_steps=2", "train.validate_every=2", "train.checkpoint_every=2",
              "train.keep_checkpoints=5", "data.alignment=truth")
EVAL = ("eval.queries=10", "eval.kaleido_samples=32", "eval.probe_train=40", "eval.probe_test=20", "eval.probe_iterations=5",
        "eval.batch_photographs=16")
KEYS = ("step", "samples", "digest", "losses", "accuracy", "grad_norm", "validation")


def _config(shards: Path, store: Path, out: Path, dtype: str, *more: str) -> Config:
    return small_config(shards, out, *FOUR_STEPS, *EVAL, f"data.store={store}", f"data.store_dtype={dtype}", *more)


@pytest.fixture(scope="module")
def stores(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store a dtype, each in a folder of its name; read only."""
    folder = tmp_path_factory.mktemp("stores")
    for dtype in STORE_DTYPES:
        assert encode(_config(tiny_shards, folder / dtype, folder / "none", dtype)) == 0
    return folder


def _lines(out: Path) -> list[dict]:
    return [{key: line.get(key) for key in KEYS} for line in map(json.loads, (out / "metrics.jsonl").read_text().splitlines())]


@pytest.mark.parametrize("dtype", STORE_DTYPES)
def test_losses_equal_those_of_computed_features(dtype: str, tiny_shards: Path, stores: Path, tmp_path: Path) -> None:
    found = stored_losses(_config(tiny_shards, stores / dtype, tmp_path, dtype), batches=3)
    print(json.dumps(found))
    assert set(found["losses"]) == {
        "total", "itm", "amlm", "rotation", "jigsaw", "camouflage", "grey_to_color", "blank_to_color"}
    assert found["dtype"] == dtype and found["stored_loss_difference"] == max(found["losses"].values())
    if dtype == "uint8":
        assert found["stored_loss_bound"] is None and 0 < found["stored_loss_difference"] < 0.05  # reported, not promised
    else:
        assert found["stored_loss_difference"] <= found["stored_loss_bound"]
    assert (found["stored_loss_difference"] > 1e-6) == (dtype != "fp32")  # the store was read, and its dtype


def test_the_command_prints_the_difference_and_refuses_another_store(
    tiny_shards: Path, stores: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(DEMO), *RUN, *FOUR_STEPS, f"data.shards={tiny_shards}", f"data.store={stores / 'fp16'}"]
    assert program.main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["stored_loss_difference"] < 1e-3
    assert program.main([*arguments, "data.store_dtype=uint8"]) == 2
    assert "made with data.store_dtype=fp16, found data.store_dtype=uint8" in capsys.readouterr().err


def test_a_run_from_the_store_is_that_from_photographs_resumes_exactly_and_is_evaluated_alike(
    tiny_shards: Path, stores: Path, tmp_path: Path
) -> None:
    reports = {}
    for name in ("computed", "stored"):
        assert pretrain(_config(tiny_shards, stores / "fp32", tmp_path / name, "fp32", f"model.features={name}")) == 0
        reports[name] = evaluate_run(tmp_path / name, load_run_config(tmp_path / name))
    computed, stored = _lines(tmp_path / "computed"), _lines(tmp_path / "stored")
    for ours, theirs in zip(stored, computed, strict=True):
        assert (ours["step"], ours["digest"]) == (theirs["step"], theirs["digest"])
        if theirs["losses"]:
            assert ours["losses"] == pytest.approx(theirs["losses"], rel=1e-4)
        else:
            assert ours["validation"]["losses"] == pytest.approx(theirs["validation"]["losses"], rel=1e-4)
    summary = json.loads((tmp_path / "stored" / "summary.json").read_text())
    assert summary["picked"]["features"] == "stored" and summary["data"]["store"]["recipe"]["kaleido.patch_size"] == 12
    for task, value in reports["computed"]["tasks"].items():
        assert reports["stored"]["tasks"][task] == pytest.approx(value, abs=0.04)  # 1 of 32: an argmax of near equals
    assert reports["stored"]["itr"] == pytest.approx(reports["computed"]["itr"], abs=0.11)
    assert json.loads((tmp_path / "stored" / "examples.json").read_text())["pictures"]  # of the photographs
    _resumes(tiny_shards, stores, tmp_path / "stored", stored)


def _resumes(shards: Path, stores: Path, out: Path, whole: list[dict]) -> None:
    """From the checkpoint of step 2, with the store elsewhere; not with another dtype."""
    moved = shutil.copytree(stores / "fp32", out.with_name("moved"))
    shutil.rmtree(out / "checkpoints" / "step-00000004")
    (out / "checkpoints" / "latest").write_text("step-00000002")
    with pytest.raises(ValueError, match="data.store_dtype=fp16 but the run in .* has fp32"):
        pretrain(_config(shards, stores / "fp16", out, "fp16", "model.features=stored"), resume=True)
    assert pretrain(_config(shards, moved, out, "fp32", "model.features=stored"), resume=True) == 0
    assert _lines(out) == whole


def test_no_photograph_is_read(tiny_shards: Path, stores: Path, tmp_path: Path) -> None:
    shards = shutil.copytree(tiny_shards, tmp_path / "shards")
    for tar in shards.glob("*.tar"):
        tar.unlink()
    assert pretrain(_config(shards, stores / "uint8", tmp_path / "run", "uint8", "model.features=stored", "train.steps=2")) == 0
    assert len([line for line in _lines(tmp_path / "run") if line["losses"]]) == 2


def test_broken_blocks_are_holes_and_too_many_stop(tiny_shards: Path, stores: Path, tmp_path: Path) -> None:
    store = shutil.copytree(stores / "fp16", tmp_path / "store")
    path = store / f"train-000000{ENDING}"
    data, block = bytearray(path.read_bytes()), FeatureStore(path).header.block_bytes
    for sample in range(FeatureStore(path).header.samples):
        data[HEADER_BYTES + sample * block] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="more than data.max_holes=0.01 allows; train sample .*do not match their CRC32"):
        pretrain(_config(tiny_shards, store, tmp_path / "run", "fp16", "model.features=stored"))
    pretrain(_config(tiny_shards, store, tmp_path / "all", "fp16", "model.features=stored", "data.max_holes=1",
                     "train.steps=1"))
    line = _lines(tmp_path / "all")[0]
    assert line["losses"]["total"] == 0  # nothing that is not there counts


def test_several_readers_change_nothing_and_leave_no_thread(
    tiny_shards: Path, stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run with a broken block, stopped at step 2 and resumed, against the same with one reader."""
    store = shutil.copytree(stores / "fp16", tmp_path / "store")
    path = store / f"train-000000{ENDING}"
    data, block = bytearray(path.read_bytes()), FeatureStore(path).header.block_bytes
    data[HEADER_BYTES + 30 * block] ^= 1
    path.write_bytes(data)

    def trained(name: str) -> tuple[list[dict], str]:
        settings = _config(tiny_shards, store, tmp_path / name, "fp16", "model.features=stored", "data.max_holes=1",
                           "train.steps=8", "train.warmup_steps=2")
        assert pretrain(settings) == 0
        shutil.rmtree(tmp_path / name / "checkpoints" / "step-00000008")
        (tmp_path / name / "checkpoints" / "latest").write_text("step-00000006")
        assert pretrain(settings, resume=True) == 0
        return _lines(tmp_path / name), json.loads((tmp_path / name / "summary.json").read_text())["data"]["holes"]

    wanted = trained("one")
    monkeypatch.setattr(shard_stores, "READER_BYTES", block)
    monkeypatch.setattr(from_store, "readers_for", lambda device: 4)
    assert trained("four") == wanted
    assert list(wanted[1]) == ["train sample 30"]
    gc.collect()
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith(("batches", shard_stores.READER))]


def test_pinning_changes_nothing_or_says_what_to_raise(tiny_shards: Path, stores: Path, tmp_path: Path) -> None:
    config = _config(tiny_shards, stores / "fp16", tmp_path, "fp16", "model.features=stored", "data.pin_store=true")
    split, plain = Split.open(tiny_shards, "train"), dataclasses.replace(config.data, pin_store=False)
    try:
        pinned = open_source(config, split).store
    except ValueError as error:  # a machine that allows little locked memory
        assert "cannot be locked in memory" in str(error) and "raise 'ulimit -l' or set data.pin_store=false" in str(error)
        return
    other = open_source(dataclasses.replace(config, data=plain), split).store
    blocks = [torch.empty(1, 74, one.block_bytes // 74, dtype=torch.uint8) for one in (pinned, other)]
    for one, block in zip((pinned, other), blocks, strict=True):
        assert one.copy(split.starts[:1], block.numpy().reshape(1, -1)).all()
    assert torch.equal(*blocks)
