"""A captioner's training that is interrupted and goes on: the same weights, or a word about what differs."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from kaleido_fast.alignment import captioner_training
from kaleido_fast.alignment.align import CAPTIONER, TRAINING, align
from kaleido_fast.config import Config, load_config
from kaleido_fast.data.batches.batch import Batch
from kaleido_fast.training.checkpoint import latest_checkpoint
from kaleido_fast.training.engine import Engine
from kaleido_fast.training.loop import Loop
from kaleido_fast.training.workers.group import Workers
from tests.alignment.small_align import SMALL_CAPTIONER
from tests.places import DEMO

STEPS = 30  # the report at 25 is before the last checkpoint, that at the end after it


class Killed(BaseException):
    """What no code of ours catches."""


def config_of(shards: Path, out: Path, *more: str) -> Config:
    return load_config(DEMO, [*SMALL_CAPTIONER, f"data.shards={shards}", f"run.out={out}", f"align.steps={STEPS}",
                              "align.checkpoint_every=9", "align.mode=forced", *more])


def kill_before(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    turn = Loop.turn

    def turn_or_kill(loop: Loop, batches: Iterator[Batch]) -> bool:
        return killed() if loop.progress.step == step else turn(loop, batches)

    monkeypatch.setattr(Loop, "turn", turn_or_kill)


def killed(*_: object) -> None:
    raise Killed


def finish(config: Config) -> Path:
    """Train and stop before anything is aligned: the shards are shared by all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kaleido_fast.alignment.align.share_out", killed)
        with pytest.raises(Killed):
            align(config)
    return Path(config.run.out) / CAPTIONER


@pytest.fixture(scope="module")
def whole(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The captioner of a training that nothing interrupted."""
    return finish(config_of(tiny_shards, tmp_path_factory.mktemp("whole")))


def test_a_killed_training_goes_on_as_if_nothing_had_been(
    tiny_shards: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(tiny_shards, tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch:
        kill_before(29, patch)
        with pytest.raises(Killed):
            align(config)
    assert latest_checkpoint(tmp_path / "run" / TRAINING).name == "step-00000027"
    captioner = finish(config)
    assert "captioner-training: the captioner's training goes on at step 27" in capsys.readouterr().out
    expected, found = (load_file(folder / "captioner.safetensors") for folder in (whole, captioner))
    assert expected.keys() == found.keys() and all(torch.equal(value, found[name]) for name, value in expected.items())
    assert (captioner / "captioner.json").read_text() == (whole / "captioner.json").read_text(), "the losses too"
    assert json.loads((captioner / "speed.json").read_text())["samples_per_s"] > 0
    assert not (tmp_path / "run" / TRAINING).exists(), "no checkpoint is left once the captioner is there"


def test_a_signal_saves_and_leaves(tiny_shards: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(tiny_shards, tmp_path / "run")
    turn = Loop.turn

    def signalled(loop: Loop, batches: Iterator[Batch]) -> bool:
        if loop.progress.step == 12:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.05)
        return turn(loop, batches)

    monkeypatch.setattr(Loop, "turn", signalled)
    assert align(config) == 128 + signal.SIGTERM
    assert latest_checkpoint(tmp_path / "run" / TRAINING).name == "step-00000013"
    assert not (tmp_path / "run" / CAPTIONER).exists() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    expected, found = (load_file(folder / "captioner.safetensors") for folder in (whole, finish(config)))
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


@pytest.fixture(scope="module")
def killed_run(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("killed")
    with pytest.MonkeyPatch.context() as patch:
        kill_before(10, patch)
        with pytest.raises(Killed):
            align(config_of(tiny_shards, out))
    return out


def test_a_full_disk_costs_no_checkpoint(tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, written = Engine.save, []

    def save(engine: Engine, *where: object) -> None:
        if written:
            raise OSError("the disk is full")
        written.append(where)
        own(engine, *where)

    monkeypatch.setattr(Engine, "save", save)
    with pytest.raises(ValueError, match="step-00000018: cannot be written: the disk is full; make room, then go on from the "
                                         "checkpoint before it by the same command"):
        align(config_of(tiny_shards, tmp_path))
    assert latest_checkpoint(tmp_path / TRAINING).name == "step-00000009"
    assert not list((tmp_path / TRAINING).glob(".*"))


def test_a_checkpoint_of_before_is_read() -> None:
    """It had "step", "total" and the sums in a list."""
    state = {"step": 9, "total": 30, "sums": [40.5, 3.0, 2.5, 120.0, 144.0]}
    progress = captioner_training._progress_of(state, 16)
    assert (progress.step, progress.position, progress.total_steps, progress.batch) == (9, 144, 30, 16)
    meter = captioner_training.CaptionMeter(progress.meter)
    assert meter.totals(Workers(0, 1)) == progress.meter
    assert meter.read(Workers(0, 1)) == {"loss": 40.5 / 120, "accuracy": 3 / 120, "looks": 2.5 / 120}
    assert captioner_training._progress_of(progress.as_state(), 16) == progress


def test_another_recipe_is_refused(tiny_shards: Path, killed_run: Path) -> None:
    with pytest.raises(ValueError, match=r"captioner-training: a captioner's training was interrupted there, trained with "
                                         r"align.hidden=8, not 9; go on with that, give another run.out, or remove the folder"):
        align(config_of(tiny_shards, killed_run, "align.hidden=9"))


def test_another_number_of_workers_is_refused(killed_run: Path) -> None:
    recipe = json.loads((killed_run / TRAINING / "recipe.json").read_text())
    assert recipe.pop(captioner_training.COUNT) == 1
    with pytest.raises(ValueError, match="trained with the number of workers=1, not 2; go on with that"):
        captioner_training.find_training(killed_run / TRAINING, recipe, 2)


def test_changed_checkpoints_are_refused(tiny_shards: Path, killed_run: Path) -> None:
    file = next((killed_run / TRAINING / "step-00000009").glob("*.pt"))
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(ValueError, match="changed since it was written"):
        align(config_of(tiny_shards, killed_run))


def test_what_a_kill_left_half_written_goes(tiny_shards: Path, tmp_path: Path) -> None:
    """Without a whole checkpoint the training begins anew, by whatever settings."""
    folder = tmp_path / TRAINING
    (folder / ".writing-step-00000009").mkdir(parents=True)
    (folder / "recipe.json").write_text('{"align.hidden": 7}')
    assert captioner_training.find_training(folder, {"align.hidden": 8}, 1) is None
    assert [path.name for path in folder.iterdir()] == ["recipe.json"]
    assert json.loads((folder / "recipe.json").read_text())["align.hidden"] == 8
