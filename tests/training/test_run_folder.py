"""A run's folder: refusing, resuming, cutting back."""

import json

import pytest

from kaleido_fast.training.run_folder import RunFolder


def test_a_run_is_not_overwritten_without_resume(tmp_path) -> None:
    folder = RunFolder(tmp_path / "run")
    assert folder.find("train: {steps: 5}\n", resume=False) is False
    folder.start("train: {steps: 5}\n")
    with pytest.raises(ValueError, match="a run is there already; add '--resume auto'"):
        folder.find("train: {steps: 5}\n", resume=False)
    assert folder.find("train: {steps: 5}\n", resume=True) is True


def test_resuming_with_other_settings_names_the_first(tmp_path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.start("train: {steps: 5, seed: 1, micro_batch: 16}\nrun: {out: a}\n")
    with pytest.raises(ValueError, match="train.seed=2 but the run in .* has 1"):
        folder.find("train: {steps: 5, seed: 2, micro_batch: 16}\nrun: {out: b}\n", resume=True)
    # what keeps the batch of a step on another number of workers may change
    assert folder.find("train: {steps: 5, seed: 1, micro_batch: 32}\nrun: {out: b}\n", resume=True)


def test_a_run_may_be_given_another_length_in_steps_or_epochs(tmp_path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.start("train: {steps: 0, epochs: 0, minutes: 5}\nrun: {out: a}\n")
    longer = "train: {steps: 9, epochs: 0, minutes: 0}\nrun: {out: b}\n"
    with pytest.raises(ValueError, match="train.minutes=7 but the run in .* has 5; give .* train.steps=N"):
        folder.find("train: {steps: 0, epochs: 0, minutes: 7}\nrun: {out: a}\n", resume=True)
    assert folder.find(longer, resume=True)
    folder.go_on(3, "train: {steps: 0, epochs: 0, minutes: 5}\nrun: {out: b}\n")  # the same length: its settings stay
    assert "out: a" in folder.config_file.read_text()
    folder.go_on(3, longer)
    assert folder.config_file.read_text() == longer


def test_a_run_older_than_a_setting_goes_on_where_that_has_its_default(tmp_path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.start("train: {steps: 5, task_weights: {itm: 3}}\n")
    defaults = "train: {steps: 0, warp: 0.5, task_weights: {}}\n"
    assert folder.find("train: {steps: 5, warp: 0.5, task_weights: {itm: 3}}\n", resume=True, defaults=defaults)
    with pytest.raises(ValueError, match="train.warp=0.7 but the run in .* has 0.5; resume it with its own"):
        folder.find("train: {steps: 5, warp: 0.7, task_weights: {itm: 3}}\n", resume=True, defaults=defaults)
    with pytest.raises(ValueError, match="train.task_weights.amlm=2 but the run in .* has None"):
        folder.find("train: {steps: 5, warp: 0.5, task_weights: {itm: 3, amlm: 2}}\n", resume=True, defaults=defaults)
    with pytest.raises(ValueError, match="train.warp=0.5 but the run in .* has None"):
        folder.find("train: {steps: 5, warp: 0.5, task_weights: {itm: 3}}\n", resume=True)


@pytest.mark.parametrize("damage", [b"train: {steps: [", b"\xff\xfe"])
def test_damaged_settings_of_a_run_are_named(tmp_path, damage: bytes) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.start("a: 1\n")
    folder.config_file.write_bytes(damage)
    with pytest.raises(ValueError, match=r"config.yaml: cannot be read as a run's settings: .*; give another run.out"):
        folder.find("a: 1\n", resume=True)


def test_a_place_that_cannot_be_written_is_named(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file/run: cannot be written: Not a directory; give another run.out"):
        RunFolder(tmp_path / "file" / "run").start("a: 1\n")


def test_a_foreign_folder_is_refused(tmp_path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="not empty and not a run"):
        RunFolder(tmp_path).find("a: 1\n", resume=True)


def test_a_folder_whose_first_file_was_torn_by_a_kill_is_a_new_run(tmp_path) -> None:
    (tmp_path / ".config.yaml.writing").write_text("a")
    folder = RunFolder(tmp_path)
    assert folder.find("a: 1\n", resume=True) is False
    folder.start("a: 1\n")
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_metrics_are_cut_back_to_the_checkpoint(tmp_path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.start("a: 1\n")
    for step in (10, 20, 30):
        folder.append_metrics({"step": step})
    with folder.metrics_file.open("a") as stream:
        stream.write('{"step": 4')  # torn by a kill
    folder.cut_metrics(20)
    assert [json.loads(line)["step"] for line in folder.metrics_file.read_text().splitlines()] == [10, 20]
