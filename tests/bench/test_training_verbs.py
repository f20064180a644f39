"""`kaleido-fast bench step|loader|end-to-end`: figures that belong together, files, and mistakes in one line."""

import json
from pathlib import Path

import pytest
import torch

from kaleido_fast.cli import main
from kaleido_fast.config import load_config
from kaleido_fast.training.stores.encode import encode
from tests import places
from tests.small import MODEL

DEMO = str(places.DEMO)
SMALL = (*MODEL, "train.micro_batch=16", "train.log_every=2")

CONTRAST = ("model.itc_dim=8", "train.task_weights.itc=2", "train.itc_block=16")


def run(tool: str, out: Path, *arguments: str) -> dict:
    assert main(["bench", tool, DEMO, "--out", str(out), *SMALL, *arguments]) == 0
    return json.loads(out.read_text())[tool]


def test_steps_without_shards(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    found = run("step", tmp_path / "x.json", "--steps", "4", "--lengths", "6-9", "--tflops", "0.5", "--against", "reference")
    assert found["peak_tflops"] == 0.5 and found["text_tokens"]["median"] <= 9
    assert set(found["ways"]) == {"kaleido_fast", "reference"}
    said = capsys.readouterr().out
    assert "6 to 9 tokens" in said and "| reference |" in said and f"{found['samples_per_s']:,.1f} samples/s" in said


@pytest.mark.parametrize("more", [(), CONTRAST])
def test_steps_on_shards_use_their_texts(more: tuple[str, ...], tiny_shards: Path, tmp_path: Path) -> None:
    found = run("step", tmp_path / "x.json", "--steps", "2", f"data.shards={tiny_shards}", *more)
    assert found["texts"].startswith("of the shards: median") and found["samples"] == 32
    assert ("times_without_itc" in found) == bool(more)


@pytest.mark.parametrize(("features", "more"), [("computed", ()), ("stored", ()), ("stored", CONTRAST)])
def test_loader_and_loop(features: str, more: tuple[str, ...], tiny_shards: Path, tmp_path: Path) -> None:
    settings = [f"data.shards={tiny_shards}", f"data.store={tmp_path / 'store'}", f"model.features={features}", *more]
    if features == "stored":
        assert encode(load_config(DEMO, [*SMALL, *settings])) == 0
    loader = run("loader", tmp_path / "x.json", "--steps", "3", "data.prefetch=1", *settings)
    assert loader["source"] == ("photographs" if features == "computed" else "store, fp16")
    assert (loader["first_epoch_samples_per_s"] is None) == (features == "computed")  # an epoch has 4 batches, 3 are made ahead
    assert loader["samples"] == 48 and loader["samples_per_s"] * loader["seconds"] == pytest.approx(48)
    past_warmup = ["train.minutes=0", "train.steps=9", "train.warmup_steps=5"]
    loop = run("end-to-end", tmp_path / "x.json", "--steps", "12", *settings, *past_warmup)
    assert loop["source"] == loader["source"] and loop["steps"] == 12
    assert loop["share_of_step"] == pytest.approx(loop["samples_per_s"] / loop["step_samples_per_s"])
    assert 0 <= loop["data_wait_share"] < 1 and 0.3 < loop["share_of_step"] < 3
    assert not list(tmp_path.glob("run*"))


@pytest.mark.parametrize(("arguments", "message"), [
    (["loader", DEMO], "bench loader: data.shards: not given"),
    (["end-to-end", DEMO, "--steps", "0"], "--steps=0 must be at least 1"),
    (["step", DEMO, "--lengths", "a-b"], "--lengths=a-b: expected a number of tokens such as 64, or two such as 12-16"),
    (["step", DEMO, "--lengths", "12-99"], "texts of 12 to 99 tokens must lie in 3..data.max_tokens=40"),
    (["step", DEMO, "--against", "tensorflow", "train.micro_batch=16"], "--against=tensorflow: unknown"),
    (["step", DEMO, "--lengths", "9", "data.shards=/x"], "--lengths=9 is for drawn texts, found data.shards=/x"),
    (["loader", DEMO, "data.shards=none"], "none"),
])
def test_mistakes_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["bench", *arguments]) == 2
    errors = capsys.readouterr().err
    assert message in errors and "Traceback" not in errors


@pytest.mark.skipif(torch.cuda.is_available(), reason="shows what is said without a CUDA device")
def test_a_config_for_a_gpu_needs_one(capsys: pytest.CaptureFixture) -> None:
    assert main(["bench", "step", str(places.CONFIGS / "large.yaml")]) == 2
    assert "run.device=cuda, but no CUDA device was found" in capsys.readouterr().err
