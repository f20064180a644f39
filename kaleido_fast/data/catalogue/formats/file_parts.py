"""Photographs that lie in a part of a large file: of an archive, or of a file of ours that what is packed is copied to."""

import atexit
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class FilePart:
    """A photograph's bytes inside a file."""

    file: Path
    offset: int
    length: int
    name: str

    def read(self) -> bytes:
        with self.file.open("rb") as stream:
            stream.seek(self.offset)
            data = stream.read(self.length)
        if len(data) < self.length:
            raise OSError(f"{self.file}: ends inside of {self.name}")
        return data


class Spool:
    """A temporary file (under TMPDIR) that photographs are copied to until the process ends: prepare takes them in another
    order than they come.
    """

    def __init__(self) -> None:
        descriptor, name = tempfile.mkstemp(prefix="kaleido-photographs-")
        self._stream, self._file, self._end = os.fdopen(descriptor, "wb"), Path(name), 0
        atexit.register(self._file.unlink, missing_ok=True)

    def add(self, data: bytes, name: str) -> FilePart:
        part = FilePart(self._file, self._end, len(data), name)
        self._stream.write(data)
        self._end += len(data)
        return part

    def flush(self) -> None:
        """What was added can be read from here on."""
        self._stream.flush()
