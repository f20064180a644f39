"""The bytes of a catalogue that is one text file, packed by gzip or not."""

import contextlib
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path

GZIP = b"\x1f\x8b"  # what its files begin with
EXCEL = "an Excel file; save its sheet as CSV UTF-8 and give that"
NO_TEXT = {b"PK\x03\x04": EXCEL, b"\xd0\xcf\x11\xe0": EXCEL}  # what files of other formats begin with, and what to do


@contextlib.contextmanager
def opened(file: Path) -> Iterator[io.BufferedReader | gzip.GzipFile]:
    """The file, to be read within the block and nothing else done there; unpacked where it is gzip's, whatever its name.

    Raises:
        ValueError: it is not there, is no text, or cannot be read to its end.
    """
    try:
        with file.open("rb") as stream:
            head = stream.read(4)
            is_packed = head[: len(GZIP)] == GZIP
            if head in NO_TEXT:
                raise ValueError(f"{file}: {NO_TEXT[head]}")
            stream.seek(0)
            yield gzip.GzipFile(fileobj=stream) if is_packed else stream
    except FileNotFoundError:
        raise ValueError(f"{file}: no such catalogue") from None
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
