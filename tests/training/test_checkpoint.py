"""Checkpoints that could not be written, were cut in the middle, or belong to a trajectory that was left."""

import json
import resource
from pathlib import Path

import pytest

from kaleido_fast.training import checkpoint
from kaleido_fast.training.checkpoint import latest_checkpoint
from kaleido_fast.training.pretrain import pretrain
from tests.small import small_config

KEYS = ("step", "digest", "losses", "accuracy", "grad_norm", "validation")


def _config(shards: Path, out: Path, *more: str):
    return small_config(shards, out, "train.steps=6", "train.warmup_steps=2", "train.validate_every=2",
                        "train.checkpoint_every=2", "train.log_every=4", "model.dropout=0.1", *more)


def _trajectory(out: Path) -> list[dict]:
    return [{key: line.get(key) for key in KEYS} for line in map(json.loads, (out / "metrics.jsonl").read_text().splitlines())]


class Killed(BaseException):
    """What no handler of ours catches, as a kill."""


@pytest.fixture(scope="module")
def whole(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    out = tmp_path_factory.mktemp("whole") / "run"
    assert pretrain(_config(tiny_shards, out)) == 0
    return _trajectory(out)


@pytest.mark.parametrize("place", ["save_weights", "_write_hashes", "replace_text", "_prune"])
def test_a_write_cut_in_the_middle_costs_the_steps_since_the_one_before(
    place: str, whole, tiny_shards, tmp_path, monkeypatch
) -> None:
    real, calls = getattr(checkpoint, place), []

    def cut(*arguments: object) -> object:
        calls.append(place)
        if len(calls) == 2:
            raise Killed
        return real(*arguments)

    monkeypatch.setattr(checkpoint, place, cut)
    with pytest.raises(Killed):
        pretrain(_config(tiny_shards, tmp_path / "run"))
    monkeypatch.undo()
    folder = tmp_path / "run" / "checkpoints"
    assert latest_checkpoint(folder).name == ("step-00000004" if place == "_prune" else "step-00000002")
    assert list(folder.glob(".writing-*")) or place in ("replace_text", "_prune")
    assert pretrain(_config(tiny_shards, tmp_path / "run"), resume=True) == 0
    assert _trajectory(tmp_path / "run") == whole
    assert sorted(path.name for path in folder.iterdir()) == ["latest", "step-00000004", "step-00000006"]


def test_leftovers_go_when_a_run_is_resumed(tiny_shards: Path, tmp_path: Path) -> None:
    pretrain(_config(tiny_shards, tmp_path / "run"))
    folder = tmp_path / "run" / "checkpoints"
    for name in (".writing-step-00000008", ".converted"):
        (folder / name).mkdir()
        (folder / name / "part").write_text("half")
    assert pretrain(_config(tiny_shards, tmp_path / "run"), resume=True) == 0  # it was done: nothing else is written
    assert sorted(path.name for path in folder.iterdir()) == ["latest", "step-00000004", "step-00000006"]


def test_a_disk_without_room_is_one_line_and_leaves_the_checkpoint_before(tiny_shards, tmp_path, monkeypatch) -> None:
    """The limit on a file's size stands for the disk's: the second checkpoint meets it."""
    real, calls, limits = checkpoint.save_checkpoint, [], resource.getrlimit(resource.RLIMIT_FSIZE)

    def limited(*arguments: object, **options: object) -> object:
        calls.append(1)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16 if len(calls) == 2 else limits[0], limits[1]))
        try:
            return real(*arguments, **options)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    monkeypatch.setattr("kaleido_fast.training.run.records.save_checkpoint", limited)
    with pytest.raises(ValueError, match="checkpoints/step-00000004: cannot be written: .*; make room, then go on"):
        pretrain(_config(tiny_shards, tmp_path / "run"))
    folder = tmp_path / "run" / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["latest", "step-00000002"]
    assert latest_checkpoint(folder).name == "step-00000002"


def test_checkpoints_of_a_left_trajectory_do_not_push_out_the_new_ones(tiny_shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    pretrain(_config(tiny_shards, out, "train.keep_checkpoints=3"))
    (out / "checkpoints" / "latest").write_text("step-00000002")  # the user goes back, as the message advises
    pretrain(_config(tiny_shards, out, "train.keep_checkpoints=1"), resume=True)
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["latest", "step-00000006"]
    assert json.loads((out / "summary.json").read_text())["progress"]["step"] == 6
