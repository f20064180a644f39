"""Locks of folders as other processes leave them, for the tests of who holds what."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kaleido_fast import folder_lock
from kaleido_fast.folder_lock import LOCK

PATIENCE_S = 30


def leave(folder: Path, age_s: float = 0.0, without: str = "", **values: object) -> dict[str, Any]:
    """A lock as this process would write it, with other values; its file is `age_s` old."""
    holder = folder_lock._this_process("pretrain", True) | values
    holder.pop(without, None)
    (folder / LOCK).write_text(json.dumps(holder) + "\n")
    set_age(folder / LOCK, age_s)
    return holder


def set_age(file: Path, age_s: float) -> None:
    os.utime(file, (time.time() - age_s,) * 2)


def dead() -> int:
    """The number of a process that has ended."""
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid


def wait_for(so: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not so():
        assert time.monotonic() < deadline
        time.sleep(0.01)
