"""A run's folder: refusing, resuming, cutting back."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kaleido_fast.config import Config
from kaleido_fast.model.settings import InitSettings
from kaleido_fast.settings import as_yaml
from kaleido_fast.training.run.folder import RunFolder
from kaleido_fast.training.settings import RunSettings, TrainSettings


def config(out: str = "a", **train: Any) -> Config:
    return Config(train=TrainSettings(**train), run=RunSettings(out=out))


def test_a_run_is_not_overwritten_without_resume(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    assert folder.find(config(steps=5), resume=False) is False
    folder.start(config(steps=5))
    with pytest.raises(ValueError, match="a run is there already; add resume=True to go on with it, or give another run.out"):
        folder.find(config(steps=5), resume=False)
    assert folder.find(config(steps=5), resume=True) is True


def test_resuming_with_other_settings_names_the_first(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.start(config(steps=5, seed=1, micro_batch=16))
    with pytest.raises(ValueError, match="train.seed=2 but the run in .* has 1; resume it with its own settings or"):
        folder.find(config("b", steps=5, seed=2, micro_batch=16), resume=True)
    # what keeps the batch of a step on another number of workers may change, and what decides nothing of the weights
    assert folder.find(config("b", steps=5, seed=1, micro_batch=32, log_every=3, validate_every=7), resume=True)


def test_a_run_may_be_given_another_length_in_steps_or_epochs(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.start(config(minutes=5.0))
    with pytest.raises(ValueError, match="train.minutes=7.0 but the run in .* has 5.0; give .* train.steps=N"):
        folder.find(config(minutes=7.0), resume=True)
    longer = config("b", steps=9)
    assert folder.find(longer, resume=True)
    folder.go_on(3, longer)
    assert folder.config_file.read_text() == as_yaml(longer)


def test_a_run_older_than_a_setting_goes_on_where_that_has_its_default(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.start(config(steps=5, task_weights={"itm": 3.0}))
    text = folder.config_file.read_text()
    folder.config_file.write_text(text.replace("  clip_norm: 1.0\n", ""))
    assert folder.find(config(steps=5, task_weights={"itm": 3.0}), resume=True)
    with pytest.raises(ValueError, match="train.clip_norm=0.7 but the run in .* has 1.0; resume it with its own"):
        folder.find(config(steps=5, clip_norm=0.7, task_weights={"itm": 3.0}), resume=True)
    with pytest.raises(ValueError, match="train.task_weights={'itm': 3.0, 'amlm': 2.0} but the run in .* has {'itm': 3.0}"):
        folder.find(config(steps=5, task_weights={"itm": 3.0, "amlm": 2.0}), resume=True)
    folder.config_file.write_text(text.replace("  clip_norm: 1.0\n", "  warp: 0.5\n"))
    with pytest.raises(ValueError, match="train.warp=None but the run in .* has 0.5"):
        folder.find(config(steps=5, task_weights={"itm": 3.0}), resume=True)


@pytest.mark.parametrize(("earlier", "now", "same"), [
    ("/a/bert", "/a/bert", True), ("models/bert", "/data/models/bert", True), ("../bert", "/data/bert", True),
    ("~/bert", "/data/me/bert", True), ("/a/bert", "/b/bert", False), ("models/bert", "/data/models/albert", False),
    ("", "/a/bert", False), ("bert", "", False), ("/a/bert/", "/a/bert", True), ("/a//b/../bert", "/a/bert", True),
    ("bert", "/data/bert", False),  # a name alone is of the current folder
])
def test_paths_that_were_kept_as_they_were_typed_are_the_same_places(
    tmp_path: Path, earlier: str, now: str, same: bool
) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.start(replace(config(steps=5), init=InitSettings(bert=earlier)))
    resumed = replace(config(steps=5), init=InitSettings(bert=now))
    if same:
        assert folder.find(resumed, resume=True)
        return
    with pytest.raises(ValueError, match="init.bert=.* but the run in .* has"):
        folder.find(resumed, resume=True)


@pytest.mark.parametrize("damage", [b"train: {steps: [", b"\xff\xfe", b"- 1"])
def test_damaged_settings_of_a_run_are_named(tmp_path: Path, damage: bytes) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.start(config())
    folder.config_file.write_bytes(damage)
    with pytest.raises(ValueError, match=r"config.yaml: cannot be read as a run's settings: .*; give another run.out"):
        folder.find(config(), resume=True)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file/run: cannot be written: Not a directory; give another run.out"):
        RunFolder(tmp_path / "file" / "run").start(config())


def test_a_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="not empty and not a run"):
        RunFolder(tmp_path).find(config(), resume=True)


def test_a_folder_whose_first_file_was_torn_by_a_kill_is_a_new_run(tmp_path: Path) -> None:
    (tmp_path / ".config.yaml.writing").write_text("a")
    folder = RunFolder(tmp_path)
    assert folder.find(config(), resume=True) is False
    folder.start(config())
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_metrics_are_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.start(config())
    for step in (10, 20, 30):
        folder.append_metrics({"step": step})
    with folder.metrics_file.open("a") as stream:
        stream.write('{"step": 4')  # torn by a kill
    folder.cut_metrics(20)
    assert [json.loads(line)["step"] for line in folder.metrics_file.read_text().splitlines()] == [10, 20]
