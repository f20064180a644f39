"""A folder is held for all workers of a run by the first of them (kaleido_fast/folder_lock.py)."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from kaleido_fast.files import cannot_write
from kaleido_fast.folder_lock import LOCK, LOOK_S, FolderLock
from kaleido_fast.options import Option
from kaleido_fast.training.workers.group import Workers
from kaleido_fast.training.workers.stop import StopRequest


@contextlib.contextmanager
def held_folder(
    folder: Path, workers: Workers, verb: str, another: str | Option = "run.out", name: str = LOCK,
    stop: StopRequest | None = None,
) -> Iterator[Callable[[], None]]:
    """Hold a folder, which is made where it is not there, and goes again where nothing was written into it.

    While a holder on another machine is watched for a sign of life, the workers meet every second: none waits in vain.

    Args:
        verb: what holds it, for whoever comes second.
        another: the setting, or the option, that such a one may give anew.
        name: the lock's file.
        stop: signals that are only noted; until the folder is held they act as usual, since nothing is to be saved.
    Yields:
        What raises ValueError where this process was held up for so long that another has taken the folder over. To be
        called before something is written.
    Raises:
        ValueError: another process holds it (says which), or it cannot be written.
    """
    lock, is_held = FolderLock(folder, verb, another, name=name), False
    try:
        while not is_held:
            with workers.together():
                if workers.is_first:
                    is_held = _try_to_take(lock, folder, another)
            is_held = workers.from_first(is_held)
            if not is_held:
                time.sleep(LOOK_S)
                if stop is not None:
                    stop.act()
        yield lock.require_held
    finally:
        lock.release()


def _try_to_take(lock: FolderLock, folder: Path, another: str | Option) -> bool:
    try:
        return lock.try_take()
    except OSError as error:
        raise cannot_write(folder, error, "give another ", another) from error
