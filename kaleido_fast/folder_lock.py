"""A folder that one process writes: FOLDER/lock.json says which, from its start to its end.

    {"host": "node7", "pid": 4711, "process": "0f3c….123456.4026531836", "since": "2026-11-29 22:14:03", "verb": "pretrain",
     "beat_s": 30.0}

`process` tells a process from a later one of the same number: the machine's boot, the process's start and its namespace of
numbers; "" where there is no /proc. A thread of the holder gives the file a new time every `beat_s` seconds.

Whether a holder lives is asked of /proc where it can be seen: on the same host, boot and namespace. Any other (of another
machine, another container, another machine of the same name) is watched for two beats and some seconds. One sign of life, and
it is respected. Without one it is taken over, though not before the file is SILENT_S old by the clock of its file system. That
is not waited for where its host has this one's name and another boot: a machine that was started anew. No decision compares
the clocks of two machines: a wrong one makes the wait longer, and what beats is never taken over.

Locks of older versions have no `beat_s`. Silence says nothing of them, so that those of other machines go by hand.
"""

import contextlib
import fcntl
import json
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from kaleido_fast.options import Option, OptionError
from kaleido_fast.process_identity import boot, boot_and_namespace, namespace, process_identity

LOCK = "lock.json"
BEAT_S = 30.0  # between two signs of life
SLACK_S = 5.0  # a beat may come late by so much
SILENT_S = 300.0  # without a sign for so long, a holder elsewhere has ended
LOOK_S = 1.0  # between two looks at one that is watched


class _Watched(NamedTuple):
    """A holder elsewhere, as it was first seen."""

    sign: tuple[str, int]  # the lock's text and time: as long as they stay the same, there is no sign of life
    silent_s: float  # how old that time was
    since: float  # time.monotonic


class FolderLock:
    """The lock of a folder, for this process to take.

    Args:
        folder: made where it is not there; goes again at `release` where nothing was written into it.
        verb: what writes there, for whoever comes second.
        another: what such a one may give another of, such as "run.out".
        place: the folder's name in messages, where the folder itself is no name that a user knows.
        name: the lock's file, where a folder has several.
    """

    def __init__(
        self, folder: Path, verb: str, another: str | Option, place: Path | None = None, name: str = LOCK
    ) -> None:
        self.folder, self._verb, self._another, self._place, self._name = folder, verb, another, place or folder, name
        self._made: list[Path] = []
        self._holder: dict[str, Any] | None = None  # this process, once it holds the folder
        self._watched: _Watched | None = None
        self._usurper: dict[str, Any] | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="folder lock", daemon=True)

    def take(self) -> "FolderLock":
        """Hold the folder; waits while a holder elsewhere is watched.

        Raises:
            ValueError: another process holds it (says which).
            OSError: it cannot be written.
        """
        while not self.try_take():
            time.sleep(LOOK_S)
        return self

    def try_take(self) -> bool:
        """Whether the folder is held now; where not, its holder is being watched: try again soon. Raises as `take`."""
        if not self._made:
            self._made = [place for place in (self.folder, *self.folder.parents) if not place.exists()]
        while (is_held := self._try()) is None:
            self.folder.mkdir(parents=True, exist_ok=True)
        if is_held:
            self._thread.start()
        return is_held

    @property
    def is_held(self) -> bool:
        """Whether this process has taken the folder, and no other has since."""
        return self._holder is not None and self._usurper is None

    def require_held(self) -> None:
        """Raise ValueError where this process was held up for so long that another has taken the folder over."""
        if self._usurper is not None:
            raise OptionError(f"{self._place}: {_described(self._usurper)}: it has taken over from this process, which gave no "
                              "sign of life for too long; nothing more is written there")

    def release(self) -> None:
        """Let the folder go, and the folders that were made for it where nothing lies in them."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(timeout=BEAT_S)
        with contextlib.suppress(OSError):
            if self._holder is not None:
                with self._file.open(encoding="utf-8") as stream:
                    _take_turns(stream.fileno())  # who waits for it meanwhile sees that it is gone, and makes a new one
                    if _read(stream.read()) == self._holder:  # not taken over since
                        self._file.unlink()
            for folder in self._made:
                folder.rmdir()

    @property
    def _file(self) -> Path:
        return self.folder / self._name

    def _try(self) -> bool | None:
        """Whether the lock has been taken; None where the folder or the file went in between."""
        try:
            descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # not there yet, or its holder took away what it had made
            return None
        with os.fdopen(descriptor, "r+", encoding="utf-8") as stream:
            _take_turns(descriptor)
            if not _is_still(self._file, descriptor):  # its holder let go between the two lines above
                return None
            text = stream.read()
            left = _read(text)
            if left and not self._has_ended(left, (text, os.fstat(descriptor).st_mtime_ns)):
                return False
            if text:
                who = f"process {left['pid']}{_elsewhere(left)} (since {left['since']})" if left else "a process"
                print(f"{self._place}: taken over from {who}, which ended without letting it go", file=sys.stderr)
            stream.seek(0)
            stream.truncate()
            self._holder = _this_process(self._verb, _can_beat(descriptor))
            stream.write(json.dumps(self._holder) + "\n")
        return True

    def _has_ended(self, holder: dict[str, Any], sign: tuple[str, int]) -> bool:
        """Whether another holder has ended; False as long as that is not known.

        Raises:
            ValueError: it lives, or can neither be seen nor heard.
        """
        who, ended = f"{self._place}: {_described(holder)}", _has_ended_here(holder)
        if ended is not None:
            if not ended:
                raise OptionError(f"{who}; wait for its end, stop it, or give another ", self._another)
            return True
        earlier_boot, _ = boot_and_namespace(holder["process"])
        was_restarted = holder["host"] == socket.gethostname() and "" not in (boot(), earlier_boot) and boot() != earlier_boot
        if "beat_s" not in holder:
            if was_restarted:
                return True
            raise OptionError(f"{who}; wait for its end, give another ", self._another,
                              f", or, if it is gone, remove {self._file}")
        shortest = 2 * holder["beat_s"] + SLACK_S
        if self._watched is None:
            silent_s = max(0.0, _time_there(self.folder) - sign[1] / 1e9)
            self._watched = _Watched(sign, silent_s, time.monotonic())
            longest = shortest if was_restarted else max(shortest, SILENT_S - silent_s)
            print(f"{who}, or has ended without letting it go; watched for a sign of life, {longest:.0f} s at most",
                  file=sys.stderr)
            return False
        if sign != self._watched.sign:
            raise OptionError(f"{who}; wait for its end, stop it there, or give another ", self._another)
        seconds = time.monotonic() - self._watched.since
        return seconds >= shortest and (was_restarted or self._watched.silent_s + seconds >= SILENT_S)

    def _beat(self) -> None:
        while self._usurper is None and not self._over.wait(BEAT_S):
            with contextlib.suppress(OSError):  # a file system that is away for a while
                self._give_sign()

    def _give_sign(self) -> None:
        """Give the lock a new time. One that was removed by hand is put back, in a folder that is there."""
        with os.fdopen(os.open(self._file, os.O_RDWR | os.O_CREAT, 0o644), "r+", encoding="utf-8") as stream:
            _take_turns(stream.fileno())
            text = stream.read()
            holder = _read(text)
            if not text:
                stream.write(json.dumps(self._holder) + "\n")
            elif holder == self._holder:
                os.utime(stream.fileno())  # by the clock of the file system
            elif holder:
                self._usurper = holder


@contextlib.contextmanager
def in_turn(folder: Path) -> Iterator[None]:
    """A short change of files in `folder`, one process after the other, where the file system can do that."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _take_turns(descriptor)
        yield
    finally:
        os.close(descriptor)


def has_ended_here(folder: Path) -> bool | None:
    """Whether the process that a folder's lock names has ended; None where that cannot be seen from here, or there is none."""
    try:
        holder = _read((folder / LOCK).read_text(encoding="utf-8"))
    except OSError:
        return None
    return _has_ended_here(holder) if holder else True


def _has_ended_here(holder: dict[str, Any]) -> bool | None:
    """Whether a holder has ended that can be seen; None for any other."""
    seen = (socket.gethostname(), (boot(), namespace()))
    if not boot() or (holder["host"], boot_and_namespace(holder["process"])) != seen:
        return None
    return process_identity(holder["pid"]) != holder["process"]


def _take_turns(descriptor: int) -> None:
    """Wait until no other process is between this line and the closing of the same file."""
    with contextlib.suppress(OSError):  # a file system that cannot do it
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _is_still(file: Path, descriptor: int) -> bool:
    """Whether `file` is the open one, not removed or made anew since."""
    try:
        return os.path.samestat(file.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _read(text: str) -> dict[str, Any]:
    """A lock's content; {} where it is cut off: its process was killed while it wrote."""
    try:
        holder = dict(json.loads(text))
    except (ValueError, TypeError):
        return {}
    is_whole = {"host", "pid", "process", "since", "verb"} <= holder.keys() and isinstance(holder["process"], str) \
        and isinstance(holder.get("beat_s", 0.0), int | float)
    return holder if is_whole else {}


def _this_process(verb: str, beats: bool) -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "process": process_identity(os.getpid()),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"), "verb": verb} | ({"beat_s": BEAT_S} if beats else {})


def _described(holder: dict[str, Any]) -> str:
    return f"process {holder['pid']} on {holder['host']} works there ({holder['verb']}, since {holder['since']})"


def _elsewhere(holder: dict[str, Any]) -> str:
    return "" if holder["host"] == socket.gethostname() else f" on {holder['host']}"


def _can_beat(descriptor: int) -> bool:
    """Whether the file system lets a file have a new time. Where it does not, silence must not be taken for an end."""
    try:
        os.utime(descriptor)
    except OSError:
        return False
    return True


def _time_there(folder: Path) -> float:
    """Now, by the clock that gives the folder's files their times; seconds since 1970."""
    with tempfile.TemporaryFile(dir=folder) as probe:
        probe.write(b"\n")
        probe.flush()
        return os.fstat(probe.fileno()).st_mtime
