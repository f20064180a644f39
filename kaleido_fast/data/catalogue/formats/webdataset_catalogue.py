"""A catalogue as tars of WebDataset: members of one name are a sample, KEY.jpg with KEY.json, KEY.txt and others."""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from kaleido_fast.data.catalogue.formats.file_parts import FilePart
from kaleido_fast.data.catalogue.photograph_files import ENDINGS
from kaleido_fast.data.catalogue.product import PhotographSource, Product
from kaleido_fast.data.catalogue.row_rules import CatalogueRow, Columns, products_of_rows, require_columns
from kaleido_fast.data.catalogue.skipping import Skipped

KEY = "__key__"
TEXTS = ("txt", "text", "caption", "cls")


@dataclass(frozen=True, slots=True)
class WebDatasetCatalogue(Columns):
    """Samples of one or several tars. Columns are the keys of the JSON, the endings of texts, and `__key__`, the name."""

    CATALOG_IS: ClassVar[str] = "tars of WebDataset, one or several"

    catalog: tuple[Path, ...]

    @property
    def place(self) -> Path:
        return self.catalog[0]

    def products(self, skipped: Skipped) -> Iterator[Product]:
        """All usable products; samples of one id are photographs of one product.

        Raises:
            ValueError: a tar cannot be read, or no sample has one of the columns.
        """
        rows: list[CatalogueRow] = []
        keys: dict[str, Path] = {}
        for tar in self.catalog:
            for row in _samples(tar):
                key = row.cells[KEY]
                if keys.setdefault(key, tar) != tar:
                    row = CatalogueRow(row.place, problem="name in two tars", detail=f"{key} is in {keys[key].name} already")
                rows.append(row)
        names = dict.fromkeys(name for row in rows for name in row.cells)
        if not rows:
            raise ValueError(f"{self.place}: no sample there; expected members such as 0001.jpg and 0001.json")
        require_columns(self.place, self, list(names))
        if not any(row.photographs for row in rows):
            raise ValueError(f"{self.place}: no photograph there; expected members ending with {', '.join(ENDINGS)}")
        yield from products_of_rows(rows, self, Path(), skipped)


def _samples(tar: Path) -> Iterator[CatalogueRow]:
    key, cells, photographs, problem = "", dict[str, str](), list[PhotographSource](), ""
    try:
        with tarfile.open(tar, "r:") as archive:
            for member in archive:
                if not member.isfile():
                    continue
                folder, _, name = member.name.rpartition("/")
                stem, _, ending = name.partition(".")
                ending = ending.lower()
                if (folder, stem) != tuple(key.rpartition("/")[::2]) and key:
                    yield CatalogueRow(f"{tar.name}, {key}", cells, problem, "", tuple(photographs))
                    cells, photographs, problem = {}, [], ""
                key = f"{folder}/{stem}" if folder else stem
                cells[KEY] = key.replace("/", "_")
                if ending.rpartition(".")[2] in ENDINGS:
                    photographs.append(FilePart(tar.absolute(), member.offset_data, member.size, member.name))
                elif ending == "json" or ending in TEXTS:
                    stream = archive.extractfile(member)
                    assert stream is not None
                    problem = _add(cells, ending, stream.read()) or problem
    except FileNotFoundError:
        raise ValueError(f"{tar}: no such catalogue") from None
    except (OSError, tarfile.TarError) as error:
        raise ValueError(f"{tar}: cannot be read: {error}; a packed tar is unpacked first, such as with gunzip") from None
    if key:
        yield CatalogueRow(f"{tar.name}, {key}", cells, problem, "", tuple(photographs))


def _add(cells: dict[str, str], ending: str, data: bytes) -> str:
    """Put a member's text or texts into the cells; returns why not."""
    try:
        if ending != "json":
            cells[ending] = data.decode("utf-8").strip()
            return ""
        values = json.loads(data)
    except (ValueError, RecursionError):
        return "text that is no UTF-8, or no JSON"
    for name, value in values.items() if isinstance(values, dict) else ():
        if value is not None and not isinstance(value, dict | list):
            cells[name] = value if isinstance(value, str) else json.dumps(value)
    return ""
