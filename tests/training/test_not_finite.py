"""Weights that are not finite are refused by whoever would use them, in one line that names the tensor."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kaleido_fast import KaleidoBert
from kaleido_fast.cli import main
from kaleido_fast.training.pretrain import pretrain
from tests.places import DEMO
from tests.small import RUN, small_config

WEIGHTS = Path("weights") / "model.safetensors"
LOST = "'pooler.weight' holds 2 of 1,024 values that are not finite; "


@pytest.fixture(scope="module")
def run(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "run"
    assert pretrain(small_config(tiny_shards, out, "train.steps=1")) == 0
    return out


@pytest.fixture
def lost_run(run: Path, tmp_path: Path) -> Path:
    """The run with a NaN and an infinity in its newest checkpoint, which is whole all the same."""
    lost = shutil.copytree(run, tmp_path / "lost")
    checkpoint = lost / "checkpoints" / "step-00000001"
    _spoil(checkpoint / WEIGHTS)
    hashes = json.loads((checkpoint / "files.json").read_text())
    hashes[str(WEIGHTS)] = hashlib.sha256((checkpoint / WEIGHTS).read_bytes()).hexdigest()
    (checkpoint / "files.json").write_text(json.dumps(hashes))
    return lost


def _spoil(file: Path) -> None:
    weights = load_file(file)
    weights["pooler.weight"][0, 0], weights["pooler.weight"][3, 1] = torch.nan, torch.inf
    save_file(weights, file)


def _refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What a verb says that must end with 2; one line."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if line.startswith("kaleido-fast ")]) == 1 and "Traceback" not in "".join(lines)
    return lines[-1]


def test_a_start_from_them_is_refused(
    run: Path, tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exported, out = tmp_path / "exported", tmp_path / "run"
    assert main(["export", str(run), "--out", str(exported)]) == 0
    _spoil(exported / "model.safetensors")
    said = _refusal(capsys, "pretrain", DEMO, *RUN, f"data.shards={tiny_shards}", f"run.out={out}", "train.steps=1",
                    f"init.weights={exported}")
    refused = f"init.weights: {exported}/model.safetensors: {LOST}"
    assert f"{refused}export an older checkpoint with --step, or give other weights" in said
    assert not out.exists()


def test_a_lost_run_is_neither_resumed_nor_evaluated_nor_exported(
    lost_run: Path, tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = f"{lost_run}/checkpoints/step-00000001/weights/model.safetensors: {LOST}"
    latest = "write an older checkpoint's name into checkpoints/latest"
    for arguments, advice in (
        (("pretrain", DEMO, *RUN, f"data.shards={tiny_shards}", f"run.out={lost_run}", "train.steps=2", "--resume", "auto"),
         latest),
        (("evaluate", lost_run), latest),
        (("export", lost_run, "--out", tmp_path / "out"), "take an older checkpoint with --step"),
    ):
        assert _refusal(capsys, *arguments).endswith(f"{lost}{advice}"), arguments[0]
    with pytest.raises(ValueError, match="not finite; take an older checkpoint with step$"):
        KaleidoBert.from_pretrained(lost_run)
    assert not (tmp_path / "out").exists() and not (lost_run / "eval.json").exists()
