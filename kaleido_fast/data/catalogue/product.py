"""What a reader of catalogues yields, and what a reader is: the boundary between the formats and `prepare`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from kaleido_fast.data.catalogue.skipping import Skipped


class PhotographSource(Protocol):
    """Where the bytes of a photograph come from. It is sent to a worker process, which reads them: so it is small, such as a
    path, or a file and the number of a row in it."""

    @property
    def name(self) -> str:
        """What messages call the photograph."""

    def read(self) -> bytes:
        """An image file's bytes. Raises OSError where they cannot be read."""


@dataclass(frozen=True, slots=True)
class PhotographFile:
    """A photograph in a file of its own."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    def read(self) -> bytes:
        return self.path.read_bytes()


@dataclass(frozen=True, slots=True)
class PhotographBytes:
    """A photograph whose bytes the reader has: for few of them, since all products are in memory at once."""

    name: str
    data: bytes

    def read(self) -> bytes:
        return self.data


@dataclass(frozen=True, slots=True)
class Product:
    """One product of a catalogue."""

    id: str
    text: str
    category: str
    subcategory: str
    split: str  # "train", "validation" or "test"
    photographs: tuple[PhotographSource, ...]
    place: str  # where it stands, for messages, such as "row 7"
    fields: tuple[tuple[str, str], ...] = ()  # name and text of each, empty ones too, joined to `text`; all products' alike


class Catalogue(Protocol):
    """A catalogue of one format, opened by nobody yet. Its class is a frozen dataclass, a row of READERS (readers.py).

    Its fields are its settings. `catalog` is where it lies: a Path, or a tuple of them where the format takes several
    files. A field annotated with a `Flag` is a flag of `kaleido-fast prepare`; readers that share a flag share its annotation.
    """

    CATALOG_IS: ClassVar[str]  # what `catalog` is, for the command line's help

    @property
    def place(self) -> Path:
        """The file or folder that messages name; a generated catalogue's truth.jsonl lies beside it."""

    def products(self, skipped: Skipped) -> Iterator[Product]:
        """All products that can be used, in the catalogue's order, ids and splits by row_rules.py; what cannot be used goes to
        `skipped`.

        Raises:
            ValueError: the catalogue cannot be read at all.
        """
