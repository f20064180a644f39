"""A run's folder has one owner: who comes second is told who, and a lock that nobody holds any more is taken over."""

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kaleido_fast.alignment.align import align
from kaleido_fast.training.pretrain import pretrain
from kaleido_fast.training.run import lock as run_lock
from kaleido_fast.training.run.lock import LOCK, RunLock
from tests.small import small_config

HERE = socket.gethostname()


def _change(folder: Path, **values: object) -> Path:
    """A lock of this process, with other values."""
    RunLock.take(folder, "pretrain")
    file = folder / LOCK
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
    return file


def _dead() -> int:
    """The number of a process that has ended."""
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid


def test_a_folder_is_held_until_it_is_let_go(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "x"
    lock = RunLock.take(folder, "pretrain")
    with pytest.raises(ValueError, match=rf"x: process {os.getpid()} on {HERE} trains there \(pretrain, since 2.*\); "
                                         "wait for its end, stop it, or give another run.out$"):
        RunLock.take(folder, "align")
    lock.release()
    assert list(tmp_path.iterdir()) == [], "nothing was written there, so the folders that were made for it go"
    again = RunLock.take(folder, "pretrain")
    (folder / "config.yaml").write_text("")
    again.release()
    assert [path.name for path in folder.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize("values", [
    lambda process: {"pid": _dead()},
    lambda process: {"process": process.replace(process.split(".")[1], "1")},  # the number was given to another since
    lambda process: {"process": f"another-boot.{process.partition('.')[2]}"},
])
def test_a_lock_whose_process_is_gone_is_taken_over(
    values: Callable[[str], dict], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = _change(tmp_path, **values(run_lock._process(os.getpid())))
    left = json.loads(file.read_text())
    RunLock.take(tmp_path, "align").release()
    said = capsys.readouterr().err
    assert said == (f"{tmp_path}: taken over from process {left['pid']} (since {left['since']}), "
                    "which ended without letting it go\n")
    assert not file.exists()


def test_a_killed_process_that_nobody_has_buried_is_gone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    child = os.fork()
    if not child:
        RunLock.take(tmp_path, "pretrain")
        os._exit(0)
    deadline = time.monotonic() + 30
    while run_lock._process(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    RunLock.take(tmp_path, "pretrain").release()
    assert f"taken over from process {child} " in capsys.readouterr().err
    os.waitpid(child, 0)


@pytest.mark.parametrize("values", [
    {"host": "elsewhere"},
    {"process": run_lock._process(os.getpid()).rpartition(".")[0] + ".1"},  # of another container
])
def test_a_process_that_cannot_be_seen_is_believed(values: dict, tmp_path: Path) -> None:
    file = _change(tmp_path, **values)
    with pytest.raises(ValueError, match="trains there .*; wait for its end, give another run.out, or, if it is gone, "
                                         f"remove {file}"):
        RunLock.take(tmp_path, "pretrain")
    file.unlink()
    RunLock.take(tmp_path, "pretrain").release()


@pytest.mark.parametrize("text", ['{"host": "no', "[1]", "{}"])
def test_a_lock_that_was_cut_off_is_taken_over(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / LOCK).write_text(text)
    RunLock.take(tmp_path, "pretrain").release()
    assert "taken over from a process, which ended" in capsys.readouterr().err


def test_of_many_that_start_at_once_one_gets_it(tmp_path: Path) -> None:
    """Over the lock of a dead process, which all of them would take over."""
    _change(tmp_path, pid=_dead())
    start = time.time() + 0.3
    children = []
    for _ in range(8):
        child = os.fork()
        if not child:
            time.sleep(max(0.0, start - time.time()))
            try:
                RunLock.take(tmp_path, "pretrain")
            except ValueError:
                os._exit(1)
            time.sleep(2)  # alive until all have tried
            os._exit(0)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert sorted(codes) == [0] + 7 * [1]


def test_whoever_took_it_by_hand_keeps_it(tmp_path: Path) -> None:
    lock = RunLock.take(tmp_path, "pretrain")
    other = json.loads((tmp_path / LOCK).read_text()) | {"process": "another"}
    (tmp_path / LOCK).write_text(json.dumps(other))
    lock.release()
    assert (tmp_path / LOCK).exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file/run: cannot be written: Not a directory; give another run.out"):
        RunLock.take(tmp_path / "file" / "run", "pretrain")


def test_pretrain_and_align_respect_it(tiny_shards: Path, tmp_path: Path) -> None:
    held, config = RunLock.take(tmp_path / "run", "pretrain"), small_config(tiny_shards, tmp_path / "run", "train.steps=1")
    for verb in (pretrain, align):
        with pytest.raises(ValueError, match=f"process {os.getpid()} on {HERE} trains there"):
            verb(config)
    assert [path.name for path in (tmp_path / "run").iterdir()] == [LOCK], "nothing of theirs is there"
    held.release()
    assert pretrain(config) == 0
    assert not (tmp_path / "run" / LOCK).exists()


def test_a_folder_that_goes_while_its_lock_is_taken_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its holder let go and took away the folder that it had made."""
    folder, opened, gone = tmp_path / "run", os.open, []

    def after_the_folder_went(*arguments: object) -> int:
        if not gone:
            gone.append(folder.rmdir())
        return opened(*arguments)

    monkeypatch.setattr(run_lock.os, "open", after_the_folder_went)
    RunLock.take(folder, "pretrain")
    assert gone and (folder / LOCK).exists()
