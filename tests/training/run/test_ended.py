"""A run says how it ended, also where it failed; where it was killed the next start finds that."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kaleido_fast.folder_lock import FolderLock
from kaleido_fast.training.loop import Loop
from kaleido_fast.training.pretrain import pretrain
from kaleido_fast.training.run.ended import describe_end, earlier_ends
from kaleido_fast.training.run.folder import RunFolder
from tests.small import small_config

SETTINGS = ("train.steps=4", "train.checkpoint_every=2")


@pytest.fixture
def breaks(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException | None], None]:
    """breaks(error): the step after three raises it; breaks(None): no step does."""
    turn = Loop.turn

    def breaks(error: BaseException | None) -> None:
        def turn_or_break(self: Loop, batches: Any) -> bool:
            if error is not None and self.progress.step == 3:
                raise error
            return turn(self, batches)

        monkeypatch.setattr(Loop, "turn", turn_or_break)

    return breaks


def read(out: Path) -> dict[str, Any]:
    return json.loads((out / "summary.json").read_text())


@pytest.mark.parametrize(("error", "ended"), [
    (ValueError("x.tar: cut short; prepare again"), {"how": "failed", "why": "x.tar: cut short; prepare again"}),
    (OSError(5, "Input/output error"), {"how": "failed", "why": "[Errno 5] Input/output error"}),
    (RuntimeError("out of memory\nsecond line"), {"how": "failed", "why": "RuntimeError: out of memory"}),
    (KeyboardInterrupt(), {"how": "running"}),  # as where it is killed: it can say no more
])
def test_how_a_run_failed_is_noted_and_said_when_it_goes_on(
    error: BaseException, ended: dict, breaks: Callable[..., None], tiny_shards: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "run"
    config = small_config(tiny_shards, out, *SETTINGS)
    breaks(error)
    with pytest.raises(type(error)):
        pretrain(config)
    summary = read(out)
    assert summary["ended"] == ended and summary["earlier"] == [] and summary["progress"]["step"] == 2
    breaks(None)
    capsys.readouterr()
    assert pretrain(config, resume=True) == 0
    words = f"failed: {ended['why']}" if "why" in ended else "killed, or its machine failed"
    assert f"{out}: goes on at step 2; the process before: {words}\n" in capsys.readouterr().err
    known = {"how": "killed"} if ended["how"] == "running" else ended
    assert read(out)["ended"] == {"how": "done"} and read(out)["earlier"] == [known | {"step": 2}]


def test_a_run_says_that_it_runs_from_its_start_on(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, turn, seen = tmp_path / "run", Loop.turn, []

    def look(self: Loop, batches: Any) -> bool:
        seen.append((read(out)["ended"], describe_end(out, read(out)["ended"])))
        return turn(self, batches)

    monkeypatch.setattr(Loop, "turn", look)
    assert pretrain(small_config(tiny_shards, out, "train.steps=1")) == 0
    assert pretrain(small_config(tiny_shards, out, "train.steps=2"), resume=True) == 0
    assert seen == 2 * [({"how": "running"}, "not yet: it is running")]
    assert read(out)["earlier"] == [{"how": "done", "step": 1}]


def test_a_failure_that_cannot_be_noted_is_told_all_the_same(
    breaks: Callable[..., None], tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: RunFolder, ended: dict) -> None:
        raise ValueError("cannot be written: No space left on device")

    monkeypatch.setattr(RunFolder, "change_ended", full)
    breaks(OSError(5, "Input/output error"))
    with pytest.raises(OSError, match="Input/output error"):
        pretrain(small_config(tiny_shards, tmp_path / "run", *SETTINGS))


def test_what_is_refused_changes_nothing_of_a_run_that_is_done(tiny_shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert pretrain(small_config(tiny_shards, out, *SETTINGS)) == 0
    before = (out / "summary.json").read_bytes()
    with pytest.raises(ValueError, match="train.seed=9 but the run"):
        pretrain(small_config(tiny_shards, out, *SETTINGS, "train.seed=9"), resume=True)
    assert (out / "summary.json").read_bytes() == before


def test_older_summaries_say_nothing(tmp_path: Path) -> None:
    for text in ("", "[1]", "{}", '{"progress": {"step": 3}}', '{"ended": {"how": "done"}}'):
        (tmp_path / "summary.json").write_text(text)
        assert earlier_ends(tmp_path) == []


def test_a_run_whose_process_lives_is_running(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path, "pretrain", "run.out").take()
    assert describe_end(tmp_path, {"how": "running"}) == "not yet: it is running"
    lock.release()
    assert describe_end(tmp_path, {"how": "running"}) == "killed, or its machine failed"
