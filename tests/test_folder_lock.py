"""A folder has one owner: who comes second is told who, a lock that nobody holds any more is taken over, and what beats is
respected, wherever it is and whatever its clock says."""

import fcntl
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kaleido_fast import folder_lock
from kaleido_fast.folder_lock import LOCK, FolderLock, has_ended_here
from kaleido_fast.options import Option
from kaleido_fast.process_identity import process_identity
from tests.locks import PATIENCE_S, dead, leave, set_age, wait_for

HERE, SELF = socket.gethostname(), process_identity(os.getpid())
OTHER_BOOT = f"another-boot.{SELF.partition('.')[2]}"
BEAT_S, SLACK_S, SILENT_S = 0.1, 0.1, 1.0
TWO_BEATS_S = 2 * BEAT_S + SLACK_S


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"BEAT_S": BEAT_S, "SLACK_S": SLACK_S, "SILENT_S": SILENT_S, "LOOK_S": 0.02}.items():
        monkeypatch.setattr(folder_lock, name, seconds)


@pytest.fixture
def take(tmp_path: Path) -> Iterator[Callable[..., FolderLock]]:
    """take(verb) -> the lock of tmp_path, let go at the test's end."""
    taken = []

    def take(verb: str = "pretrain", folder: Path = tmp_path) -> FolderLock:
        taken.append(FolderLock(folder, verb, "run.out").take())
        return taken[-1]

    yield take
    for lock in taken:
        lock.release()


def test_a_folder_is_held_until_it_is_let_go(tmp_path: Path, take: Callable[..., FolderLock]) -> None:
    folder = tmp_path / "runs" / "x"
    lock = take(folder=folder)
    with pytest.raises(ValueError, match=rf"x: process {os.getpid()} on {HERE} works there \(pretrain, since 2.*\); wait for "
                                         "its end, stop it, or give another run.out$"):
        take("align", folder)
    lock.release()
    assert list(tmp_path.iterdir()) == [], "nothing was written there, so the folders that were made for it go"
    again = take(folder=folder)
    (folder / "config.yaml").write_text("")
    again.release()
    assert [path.name for path in folder.iterdir()] == ["config.yaml"]


def test_what_to_give_anew_and_the_place_are_named_as_the_user_knows_them(tmp_path: Path) -> None:
    leave(tmp_path)
    with pytest.raises(ValueError, match="^shards: process .* or give another out$"):
        FolderLock(tmp_path, "prepare", Option("out"), Path("shards")).take()


@pytest.mark.parametrize("values", [
    lambda: {"pid": dead()},
    lambda: {"process": SELF.replace(SELF.split(".")[1], "1")},  # the number was given to another since
    lambda: {"process": OTHER_BOOT, "without": "beat_s"},  # of an older version, from before a restart
])
def test_a_holder_that_is_seen_to_be_gone_is_followed_at_once(
    values: Callable[[], dict], tmp_path: Path, take: Callable[..., FolderLock], capsys: pytest.CaptureFixture[str]
) -> None:
    left, started = leave(tmp_path, **values()), time.monotonic()
    take("align").release()
    assert time.monotonic() - started < TWO_BEATS_S
    assert capsys.readouterr().err == (
        f"{tmp_path}: taken over from process {left['pid']} (since {left['since']}), which ended without letting it go\n")
    assert not (tmp_path / LOCK).exists()


def test_a_killed_process_that_nobody_has_buried_is_gone(
    tmp_path: Path, take: Callable[..., FolderLock], capsys: pytest.CaptureFixture[str]
) -> None:
    child = os.fork()
    if not child:
        FolderLock(tmp_path, "pretrain", "run.out").take()
        os._exit(0)
    wait_for(lambda: not process_identity(child))
    assert has_ended_here(tmp_path)
    take()
    assert f"taken over from process {child} " in capsys.readouterr().err
    assert has_ended_here(tmp_path) is False
    os.waitpid(child, 0)


@pytest.mark.parametrize(("values", "age_s", "least_s"), [
    ({"host": "elsewhere"}, 0, SILENT_S),
    ({"host": "elsewhere"}, 0.6 * SILENT_S, 0.4 * SILENT_S),
    ({"host": "elsewhere"}, 1000, TWO_BEATS_S),
    ({"host": "elsewhere"}, -1000, SILENT_S),  # a clock that is ahead: watched from now on
    ({"process": f"{SELF.rpartition('.')[0]}.1"}, 0, SILENT_S),  # of another container
    ({"process": ""}, 0, SILENT_S),  # of a system without /proc
    ({"process": OTHER_BOOT}, 0, TWO_BEATS_S),  # this machine was started anew
    ({"process": OTHER_BOOT}, 1000, TWO_BEATS_S),
])
def test_silence_elsewhere_is_an_end(
    values: dict, age_s: float, least_s: float, tmp_path: Path, take: Callable[..., FolderLock],
    capsys: pytest.CaptureFixture[str],
) -> None:
    left, started = leave(tmp_path, age_s, **values), time.monotonic()
    assert has_ended_here(tmp_path) is None
    take()
    waited = time.monotonic() - started
    assert least_s - 0.1 <= waited < least_s + 0.5, waited
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"{tmp_path}: process {left['pid']} on {left['host']} works there (pretrain, since ")
    assert "or has ended without letting it go; watched for a sign of life, " in first and first.endswith(" s at most")
    elsewhere = " on elsewhere" if "host" in values else ""
    assert second == (f"{tmp_path}: taken over from process {left['pid']}{elsewhere} (since {left['since']}), which ended "
                      "without letting it go")
    assert json.loads((tmp_path / LOCK).read_text())["host"] == HERE


@pytest.mark.parametrize("values", [{"host": "elsewhere"}, {"process": OTHER_BOOT}], ids=["other machine", "of the same name"])
@pytest.mark.parametrize("clock_s", [0, -7200, 7200])
def test_what_beats_is_respected_whatever_its_clock(
    clock_s: float, values: dict, tmp_path: Path, take: Callable[..., FolderLock]
) -> None:
    left, over = leave(tmp_path, -clock_s, **values), threading.Event()

    def beat() -> None:
        while not over.wait(BEAT_S):
            set_age(tmp_path / LOCK, -clock_s)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(ValueError, match=rf"process {left['pid']} on {left['host']} works there \(pretrain, since .*; wait "
                                             "for its end, stop it there, or give another run.out$"):
            take()
    finally:
        over.set()
        thread.join()
    assert json.loads((tmp_path / LOCK).read_text()) == left


@pytest.mark.parametrize("values", [{"host": "elsewhere"}, {"process": f"{SELF.rpartition('.')[0]}.1"}])
def test_the_silence_of_an_older_version_says_nothing(values: dict, tmp_path: Path, take: Callable[..., FolderLock]) -> None:
    leave(tmp_path, 10000, without="beat_s", **values)
    with pytest.raises(ValueError, match="works there .*; wait for its end, give another run.out, or, if it is gone, remove "
                                         f"{tmp_path / LOCK}$"):
        take()
    (tmp_path / LOCK).unlink()
    take()


@pytest.mark.parametrize("text", ['{"host": "no', "[1]", "{}"])
def test_a_lock_that_was_cut_off_is_taken_over(
    text: str, tmp_path: Path, take: Callable[..., FolderLock], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / LOCK).write_text(text)
    take()
    assert "taken over from a process, which ended" in capsys.readouterr().err


def test_a_holder_beats_and_nothing_else_of_its_lock_changes(tmp_path: Path, take: Callable[..., FolderLock]) -> None:
    lock, file = take(), tmp_path / LOCK
    text = file.read_text()
    assert json.loads(text)["beat_s"] == BEAT_S
    for _ in range(2):
        set_age(file, 100)
        before = file.stat().st_mtime_ns
        wait_for(lambda before=before: file.stat().st_mtime_ns != before)
        assert abs(time.time() - file.stat().st_mtime) < 5
    assert file.read_text() == text
    lock.release()
    assert not lock._thread.is_alive() and not file.exists()


def test_a_lock_that_was_removed_by_hand_is_put_back(tmp_path: Path, take: Callable[..., FolderLock]) -> None:
    lock, file = take(), tmp_path / LOCK
    text = file.read_text()
    file.unlink()
    wait_for(lambda: file.exists() and file.read_text() == text)
    with pytest.raises(ValueError, match="works there"):
        take()
    lock.require_held()
    lock.release()
    assert not file.exists()


def test_where_a_file_cannot_have_a_new_time_silence_is_no_end(
    tmp_path: Path, take: Callable[..., FolderLock], monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    with monkeypatch.context() as patch:
        patch.setattr(folder_lock.os, "utime", cannot)
        take()
    assert "beat_s" not in json.loads((tmp_path / LOCK).read_text())


def test_one_that_was_held_up_finds_that_it_was_followed(tmp_path: Path) -> None:
    """A process on another machine is stopped for longer than silence may last; this one takes over; then the other goes on."""
    child = os.fork()
    if not child:
        folder_lock.socket.gethostname = lambda: "elsewhere"
        lock = FolderLock(tmp_path, "pretrain", "run.out").take()
        try:
            wait_for(lambda: lock.require_held())
        except ValueError as error:
            (tmp_path / "said").write_text(str(error))
        lock.release()
        os._exit(0)
    wait_for(lambda: (tmp_path / LOCK).exists() and (tmp_path / LOCK).read_text().endswith("\n"))
    with pytest.raises(ValueError, match=f"process {child} on elsewhere works there"):
        FolderLock(tmp_path, "align", "run.out").take()
    os.kill(child, signal.SIGSTOP)
    lock = FolderLock(tmp_path, "align", "run.out").take()
    os.kill(child, signal.SIGCONT)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    said = (tmp_path / "said").read_text()
    assert said.startswith(f"{tmp_path}: process {os.getpid()} on {HERE} works there (align, since ")
    assert said.endswith("it has taken over from this process, which gave no sign of life for too long; nothing more is "
                         "written there")
    assert json.loads((tmp_path / LOCK).read_text())["host"] == HERE, "who was followed leaves the lock alone"
    lock.require_held()
    lock.release()


def test_of_many_that_start_at_once_one_gets_it(tmp_path: Path) -> None:
    """Over the lock of a dead process, which all of them would take over."""
    leave(tmp_path, pid=dead())
    start = time.time() + 0.3
    children = []
    for _ in range(8):
        child = os.fork()
        if not child:
            time.sleep(max(0.0, start - time.time()))
            try:
                FolderLock(tmp_path, "pretrain", "run.out").take()
            except ValueError:
                os._exit(1)
            time.sleep(2)  # alive until all have tried
            os._exit(0)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert sorted(codes) == [0] + 7 * [1]


def test_who_reads_it_now_is_waited_for_when_it_is_let_go(tmp_path: Path, take: Callable[..., FolderLock]) -> None:
    """Else a process that opened the file before would write itself into one that is gone a moment later."""
    lock = take()
    with (tmp_path / LOCK).open() as reader:
        fcntl.flock(reader, fcntl.LOCK_EX)
        thread = threading.Thread(target=lock.release)
        thread.start()
        thread.join(0.5)
        assert thread.is_alive() and (tmp_path / LOCK).exists()
    thread.join(PATIENCE_S)
    assert not thread.is_alive() and not (tmp_path / LOCK).exists()


def test_whoever_took_it_by_hand_keeps_it(tmp_path: Path, take: Callable[..., FolderLock]) -> None:
    lock = take()
    leave(tmp_path, process="another")
    lock.release()
    assert (tmp_path / LOCK).exists()


def test_a_place_that_cannot_be_written(tmp_path: Path, take: Callable[..., FolderLock]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        take(folder=tmp_path / "file" / "run")


def test_a_folder_that_goes_while_its_lock_is_taken_is_made_again(
    tmp_path: Path, take: Callable[..., FolderLock], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its holder let go and took away the folder that it had made."""
    folder, opened, gone = tmp_path / "run", os.open, []
    folder.mkdir()

    def after_the_folder_went(*arguments: Any) -> int:
        if not gone:
            gone.append(folder.rmdir())
        return opened(*arguments)

    monkeypatch.setattr(folder_lock.os, "open", after_the_folder_went)
    take(folder=folder)
    assert gone and (folder / LOCK).exists()
