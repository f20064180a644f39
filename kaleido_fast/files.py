"""A folder that is written beside its place and renamed when whole, so that nothing half-written is ever read."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path


def require_free(out: Path) -> None:
    """Refuse a folder in which something lies already (ValueError)."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out}: not empty; give another --out or remove it")


@contextlib.contextmanager
def written_beside(out: Path) -> Iterator[Path]:
    """A new folder that becomes `out` when the block ends well; else it goes, and the parents made for it too.

    Raises:
        ValueError: the folder or a file in it cannot be written (no such place, no right to, disk full).
    """
    place = out.absolute()
    beside = place.with_name(f".{place.name}.writing")
    made = [parent for parent in beside.parents if not parent.exists()]
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        yield beside
        if place.exists():
            place.rmdir()
        beside.rename(place)
    except OSError as error:
        raise cannot_write(out, error, "nothing was left there; make room or give another --out") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        _remove_empty(made)


def cannot_write(place: Path, error: Exception, advice: str) -> ValueError:
    """The error that says where writing failed: a full disk does not name the file."""
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())
    return ValueError(f"{place}: cannot be written: {reason}; {advice}")


def _remove_empty(folders: list[Path]) -> None:
    """Remove the folders, the innermost first, as far as nothing lies in them."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()
