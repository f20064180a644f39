"""The bytes of a catalogue that is one text file, packed by gzip or not."""

import contextlib
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path

GZIP = b"\x1f\x8b"  # what its files begin with


@contextlib.contextmanager
def opened(file: Path) -> Iterator[io.BufferedReader | gzip.GzipFile]:
    """The file, to be read within the block and nothing else done there; unpacked where it is gzip's, whatever its name.

    Raises:
        ValueError: it is not there, or cannot be read to its end.
    """
    try:
        with file.open("rb") as stream:
            is_packed = stream.read(len(GZIP)) == GZIP
            stream.seek(0)
            yield gzip.GzipFile(fileobj=stream) if is_packed else stream
    except FileNotFoundError:
        raise ValueError(f"{file}: no such catalogue") from None
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
