"""A run's folder is held by one process: RUN/lock.json says which, from a run's start to its end.

    {"host": "node7", "pid": 4711, "process": "0f3c….123456.4026531836", "since": "2026-11-29 22:14:03", "verb": "pretrain"}

A lock is left over where its process was killed or its machine was started anew. The next run on that machine takes it over
and says so. A process on another machine, or in another container, cannot be seen. The new run is refused then, and the
message names the file to remove by hand. `process` tells a process from a later one of the same number: the machine's boot, the
process's start and its namespace of numbers.
"""

import contextlib
import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kaleido_fast.files import cannot_write
from kaleido_fast.training.run.folder import LOCK
from kaleido_fast.training.workers.group import Workers

ENDED = "ZX"  # states of a process that is dead and not yet forgotten by its parent


@contextlib.contextmanager
def held_folder(folder: Path, workers: Workers, verb: str) -> Iterator[None]:
    """Hold a run's folder for all workers; the first of them has the lock. The folder is made, and goes again where nothing
    was written into it.

    Args:
        verb: what holds it, for whoever comes second.
    Raises:
        ValueError: another process holds it (says which), or it cannot be written.
    """
    lock = None
    try:
        with workers.together():
            if workers.is_first:
                lock = RunLock.take(folder, verb)
        yield
    finally:
        if lock is not None:
            lock.release()


class RunLock:
    """A lock that this process has taken."""

    def __init__(self, file: Path, made: list[Path]) -> None:
        self._file, self._made = file, made

    @classmethod
    def take(cls, folder: Path, verb: str) -> "RunLock":
        """Hold `folder`, which is made where it is not there. Raises ValueError as `held_folder` does."""
        made = [place for place in (folder, *folder.parents) if not place.exists()]
        lock = cls(folder / LOCK, made)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            left = lock._write({"host": socket.gethostname(), "pid": os.getpid(), "process": _process(os.getpid()),
                                "since": time.strftime("%Y-%m-%d %H:%M:%S"), "verb": verb})
        except OSError as error:
            raise cannot_write(folder, error, "give another run.out") from error
        if left is not None:
            who = f"process {left['pid']} (since {left['since']})" if left else "a process"
            print(f"{folder}: taken over from {who}, which ended without letting it go", file=sys.stderr)
        return lock

    def release(self) -> None:
        """Let the folder go, and the folders that were made for it where nothing lies in them."""
        with contextlib.suppress(OSError):
            with self._file.open(encoding="utf-8") as stream:
                _take_turns(stream.fileno())  # who waits for it meanwhile sees that it is gone, and makes a new one
                if _read(stream.read()).get("process") == _process(os.getpid()):  # not taken by hand since
                    self._file.unlink()
            for folder in self._made:
                folder.rmdir()

    def _write(self, holder: dict[str, Any]) -> dict[str, Any] | None:
        """Name `holder` in the file; who was named there before and is gone.

        Raises:
            ValueError: another process is named there and may live.
        """
        while True:
            try:
                descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT, 0o644)
            except FileNotFoundError:  # its holder took the folder away that it had made
                self._file.parent.mkdir(parents=True, exist_ok=True)
                continue
            with os.fdopen(descriptor, "r+", encoding="utf-8") as stream:
                _take_turns(descriptor)
                if not _is_still(self._file, descriptor):  # its holder let go between the two lines above
                    continue
                before = stream.read()
                left = _read(before)
                if before:
                    _refuse_living(self._file, left)
                stream.seek(0)
                stream.truncate()
                stream.write(json.dumps(holder) + "\n")
                return left if before else None


def _take_turns(descriptor: int) -> None:
    """Two processes that start at once read and write the lock one after the other, where the file system can do that."""
    with contextlib.suppress(OSError):
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
    return holder if {"host", "pid", "process", "since", "verb"} <= holder.keys() else {}


def _refuse_living(file: Path, holder: dict[str, Any]) -> None:
    """Raise ValueError where the process that a lock names lives, or may live where it cannot be seen from here."""
    if not holder:
        return
    host, pid, process = holder["host"], holder["pid"], str(holder["process"])
    who = f"{file.parent}: process {pid} on {host} trains there ({holder['verb']}, since {holder['since']})"
    boot, _, space = process.split(".") if process.count(".") == 2 else ("", "", "")
    if host != socket.gethostname() or (boot == _boot() and space != _space()):
        raise ValueError(f"{who}; wait for its end, give another run.out, or, if it is gone, remove {file}")
    if boot == _boot() and _process(pid) == process:
        raise ValueError(f"{who}; wait for its end, stop it, or give another run.out")


def _process(pid: int) -> str:
    """What tells a living process of this machine from all others, also later ones of the same number; "" where none lives."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    state, *fields = stat.rpartition(")")[2].split()  # the name before it may hold anything
    return "" if state in ENDED else f"{_boot()}.{fields[18]}.{_space()}"


def _boot() -> str:
    """This start of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()


def _space() -> str:
    """The namespace in which this process's number counts: a container has its own."""
    return os.readlink("/proc/self/ns/pid").strip("pid:[]")
