"""The loop on drawn products: what a run leaves, accumulation, true alignment; and what it refuses."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from kaleido_fast.config import load_config
from kaleido_fast.data.catalogue.formats.csv_catalogue import CsvCatalogue
from kaleido_fast.data.catalogue.prepare import PrepareOptions, prepare
from kaleido_fast.data.drawn.write import generate_catalogue
from kaleido_fast.data.shards.manifest import Manifest
from kaleido_fast.data.shards.split import Split
from kaleido_fast.model import encoder
from kaleido_fast.model.weights import load_weights
from kaleido_fast.training.checkpoint import latest_checkpoint
from kaleido_fast.training.pretrain import pretrain
from tests.small import small_config


def _config(shards: Path, out: Path, *more: str):
    return small_config(shards, out, "train.warmup_steps=2", "train.validate_every=2", *more)


def _lines(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_what_readme_lists(tiny_shards: Path, tmp_path: Path) -> None:
    config = _config(tiny_shards, tmp_path / "run", "train.steps=4", "data.alignment=truth", "train.checkpoint_every=2")
    assert pretrain(config) == 0
    lines = _lines(tmp_path / "run")
    assert [line["step"] for line in lines if "losses" in line] == [1, 2, 3, 4]
    assert [line["step"] for line in lines if "validation" in line] == [2, 4]
    assert all(np.isfinite(list(line["losses"].values())).all() for line in lines if "losses" in line)
    assert set(lines[0]["losses"]) == {
        "total", "itm", "amlm", "rotation", "jigsaw", "camouflage", "grey_to_color", "blank_to_color"}
    checkpoint = latest_checkpoint(tmp_path / "run" / "checkpoints")
    assert checkpoint.name == "step-00000004"
    model = load_weights(checkpoint / "weights")
    assert model.settings == replace(config.model, attention="sdpa") and not model.training  # what `auto` came to
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["progress"]["step"] == 4 and summary["data"]["num_holes"] == 0
    assert load_config(tmp_path / "run" / "config.yaml") == config
    with pytest.raises(ValueError, match="a run is there already; add resume=True to go on with it, or give another run.out"):
        pretrain(config)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_longer_run_resumed_equals_an_undisturbed_one(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiled: bool
) -> None:
    """Stopping here is a run whose checkpoint of step 3 is all that is left."""
    monkeypatch.setattr(encoder, "BACKEND", "aot_eager")
    more = ("train.steps=6", "train.checkpoint_every=3", "model.dropout=0.1", "train.keep_checkpoints=5",
            f"model.compile={compiled}")
    for name in ("whole", "cut"):
        assert pretrain(_config(tiny_shards, tmp_path / name, *more)) == 0
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "step-00000006")
    (tmp_path / "cut" / "checkpoints" / "latest").write_text("step-00000003")
    assert pretrain(_config(tiny_shards, tmp_path / "cut", *more), resume=True) == 0
    keys = ("step", "losses", "accuracy", "grad_norm", "validation")
    whole, cut = ([{key: line.get(key) for key in keys} for line in _lines(tmp_path / name)] for name in ("whole", "cut"))
    assert whole == cut and len(whole) == 9


def test_a_lengthened_run_equals_one_that_was_planned_so(tiny_shards: Path, tmp_path: Path) -> None:
    """Up to step 3, the end of both warm-ups, the two have the same learning rates."""
    def config(name: str, *length: str):
        return _config(tiny_shards, tmp_path / name, "train.warmup_steps=3", "train.checkpoint_every=3",
                       "train.keep_checkpoints=5", *length)

    assert pretrain(config("whole", "train.steps=10")) == 0
    assert pretrain(config("lengthened", "train.steps=6")) == 0
    shutil.rmtree(tmp_path / "lengthened" / "checkpoints" / "step-00000006")
    (tmp_path / "lengthened" / "checkpoints" / "latest").write_text("step-00000003")
    assert pretrain(config("lengthened", "train.steps=10"), resume=True) == 0
    keys = ("step", "losses", "learning_rate", "grad_norm", "validation")
    whole, lengthened = ([{key: line.get(key) for key in keys} for line in _lines(tmp_path / name)]
                         for name in ("whole", "lengthened"))
    assert whole == lengthened and whole[-1]["step"] == 10
    assert load_config(tmp_path / "lengthened" / "config.yaml").train.steps == 10
    with pytest.raises(ValueError, match="train.steps=6: that is 96 samples, and the run has seen 160; give a greater length"):
        pretrain(config("lengthened", "train.steps=6"), resume=True)
    assert pretrain(config("lengthened", "train.steps=0", "train.epochs=3"), resume=True) == 0
    assert _lines(tmp_path / "lengthened")[-1]["step"] > 10


def test_accumulation_gives_the_losses_of_the_larger_batch(tiny_shards: Path, tmp_path: Path) -> None:
    pretrain(_config(tiny_shards, tmp_path / "one", "train.steps=3", "train.micro_batch=32"))
    pretrain(_config(tiny_shards, tmp_path / "two", "train.steps=3", "train.micro_batch=16", "train.accumulation=2"))
    for a, b in zip(_lines(tmp_path / "one"), _lines(tmp_path / "two"), strict=True):
        if "losses" in a:
            assert a["losses"] == pytest.approx(b["losses"], rel=1e-4)
            assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-3)


@pytest.mark.parametrize("stage", [0, 2])
def test_a_compiled_encoder_trains_as_an_eager_one(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: int
) -> None:
    """Under DeepSpeed, with dropout and validation; two graphs, whatever the batches' lengths."""
    torch.compiler.reset()
    counters.clear()
    monkeypatch.setattr(encoder, "BACKEND", "aot_eager")  # the graphs as they were traced: no C++ compiler
    more = ("train.steps=4", "model.layers=2", "model.dropout=0.1", "model.patch_encoder=dct", f"train.zero_stage={stage}")
    for name in ("eager", "compiled"):
        assert pretrain(_config(tiny_shards, tmp_path / name, *more, f"model.compile={name == 'compiled'}")) == 0
    for ours, theirs in zip(_lines(tmp_path / "compiled"), _lines(tmp_path / "eager"), strict=True):
        for kind in ("losses", "validation"):
            if kind in ours:
                found, expected = (line[kind].get("losses", line[kind]) for line in (ours, theirs))
                assert found == pytest.approx(expected, rel=1e-4)
    assert counters["stats"]["unique_graphs"] == 2
    picked = json.loads((tmp_path / "compiled" / "summary.json").read_text())["picked"]
    assert picked["compile"] is True and picked["attention_kernels"] == "torch flash attention for CPU"
    torch.compiler.reset()


def test_a_missing_compiler_is_named(tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ValueError, match="model.compile=true needs a C[+][+] compiler, 'no-such-compiler' not found; install"):
        pretrain(_config(tiny_shards, tmp_path / "run", "train.steps=1", "model.compile=true"))
    assert not (tmp_path / "run").exists()


def test_a_damaged_checkpoint_is_named(tiny_shards: Path, tmp_path: Path) -> None:
    config = _config(tiny_shards, tmp_path / "run", "train.steps=1")
    pretrain(config)
    state = next((tmp_path / "run" / "checkpoints" / "step-00000001").glob("*.pt"))
    data = bytearray(state.read_bytes())
    data[len(data) // 2] ^= 1
    state.write_bytes(data)
    with pytest.raises(ValueError, match="mp_rank_00_model_states.pt: changed since it was written"):
        pretrain(config, resume=True)


def test_a_run_goes_on_with_its_own_shards(tiny_shards: Path, tmp_path: Path) -> None:
    pretrain(_config(tiny_shards, tmp_path / "run", "train.steps=1"))
    other = shutil.copytree(tiny_shards, tmp_path / "other")
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps(manifest | {"fingerprint": "0" * 64}))
    with pytest.raises(ValueError, match="other: not the shards of .*step-00000001; resume with those"):
        pretrain(_config(other, tmp_path / "run", "train.steps=1"), resume=True)


def test_shards_of_another_vocabulary_are_refused_before_weights_are_built(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another catalogue was prepared in their place: the table of words does not fit the checkpoint's."""
    pretrain(small_config(tiny_shards, tmp_path / "run", "train.steps=1"))
    generate_catalogue(tmp_path / "other", 20, seed=3, image_size=96)
    catalogue = CsvCatalogue(tmp_path / "other" / "styles.csv", tmp_path / "other" / "images")
    prepare(PrepareOptions(catalogue, tmp_path / "s2", processes=1))
    assert Manifest.read(tmp_path / "s2").vocabulary.padded_size != Manifest.read(tiny_shards).vocabulary.padded_size
    monkeypatch.setattr("kaleido_fast.training.start.build_step", None)
    with pytest.raises(ValueError, match="s2: not the shards of .*step-00000001; resume with those, or give another run.out$"):
        pretrain(small_config(tmp_path / "s2", tmp_path / "run", "train.steps=2"), resume=True)


def test_a_run_without_a_length_is_refused(tiny_shards: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give the length of the run: train.steps, train.epochs or train.minutes"):
        pretrain(_config(tiny_shards, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_minutes_become_steps_after_the_first_twenty(tiny_shards: Path, tmp_path: Path) -> None:
    config = _config(tiny_shards, tmp_path / "run", "train.minutes=0.05", "train.warmup_steps=20", "train.validate_every=100")
    assert pretrain(config) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["progress"]["step"] == summary["progress"]["total_steps"] >= 20


def test_shards_hold_the_true_alignment(tiny_shards: Path) -> None:
    split = Split.open(tiny_shards, "train")
    masks = split.alignment(np.arange(split.num_samples), "truth")
    rows = split.rows(np.arange(split.num_samples))
    aligned = (masks != 0).sum(axis=1)
    assert (aligned > 0).all() and (aligned <= rows["num_tokens"]).all()
    assert not (masks & ((1 << 5) - 1)).any()  # levels 1 and 2 are never aligned
