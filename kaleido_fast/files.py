"""Files and folders that are written beside their place and renamed when whole, so that nothing half-written is ever read;
and JSON files read with an error that says what to do.
"""

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kaleido_fast.folder_lock import LOCK, FolderLock
from kaleido_fast.options import Option, OptionError

TORN = ".writing"  # what the name of a file ends with while it is written


def require_free(out: Path) -> None:
    """Refuse a folder in which something lies already (ValueError)."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OptionError(f"{out}: not empty; give another ", Option("out"), " or remove it")


@contextlib.contextmanager
def written_beside(out: Path, verb: str) -> Iterator[Path]:
    """A new folder that becomes `out` when the block ends well; else it goes, and the parents made for it too.

    One process at a time writes it (folder_lock.py); what one that was killed has left there goes.

    Args:
        verb: what writes it, for a process that comes second.
    Raises:
        ValueError: the folder or a file in it cannot be written (no such place, no right to, disk full), or another process
            writes the same.
    """
    place = out.absolute()
    beside = place.with_name(f".{place.name}{TORN}")
    made = [folder for folder in (beside, *beside.parents) if folder == beside or not folder.exists()]
    lock = FolderLock(beside, verb, Option("out"), out)
    try:
        lock.take()
        try:
            _clear(beside)
            yield beside
            lock.require_held()
            if place.exists():
                place.rmdir()
            beside.rename(place)
            lock.folder = place
        except BaseException:
            if lock.is_held:
                _clear(beside)
            raise
    except OSError as error:
        raise cannot_write(out, error, "nothing was left there; make room or give another ", Option("out")) from error
    finally:
        lock.release()
        _remove_empty(made)


def replace_text(file: Path, text: str) -> None:
    """Write `text` to `file` so that a reader sees the old or the new one, never a part.

    Raises:
        ValueError: it cannot be written.
    """
    beside = file.with_name(f".{file.name}.{secrets.token_hex(4)}{TORN}")  # two processes may write the same file at once
    try:
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, file)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise cannot_write(file, error, "make room and start again") from error


def is_torn(path: Path) -> bool:
    """Whether `path` is what a kill inside `replace_text` leaves."""
    return path.name.startswith(".") and path.name.endswith(TORN)


def read_json(file: Path, *advice: str | Option) -> dict[str, Any]:
    """The keys and values of a JSON file.

    Args:
        advice: what to do where it cannot be used; ends the error.
    Raises:
        ValueError: it is not there, cannot be read, is not JSON or no object of keys and values.
    """
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise OptionError(f"{file}: no such file; ", *advice) from None
    except OSError as error:
        raise OptionError(f"{file}: cannot be read: {error.strerror or error}; ", *advice) from None
    except ValueError as error:  # UnicodeDecodeError and json.JSONDecodeError are ValueErrors
        raise OptionError(f"{file}: not JSON: {error}; ", *advice) from None
    if not isinstance(values, dict):
        raise OptionError(f"{file}: holds a JSON {type(values).__name__}, expected an object of keys and values; ", *advice)
    return values


def cannot_write(place: Path, error: Exception, *advice: str | Option) -> OptionError:
    """The error that says where writing failed: a full disk does not name the file."""
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())
    return OptionError(f"{place}: cannot be written: {reason}; ", *advice)


def _clear(folder: Path) -> None:
    """Remove what lies in a folder but its lock."""
    for path in folder.iterdir() if folder.exists() else ():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != LOCK:
            path.unlink(missing_ok=True)


def _remove_empty(folders: list[Path]) -> None:
    """Remove the folders, the innermost first, as far as nothing lies in them."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()
