"""A catalogue as JSON Lines, one object a line, and a folder of photographs."""

import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from kaleido_fast.data.catalogue.formats.text_file import opened
from kaleido_fast.data.catalogue.product import Product
from kaleido_fast.data.catalogue.row_rules import CatalogueRow, Columns, Images, products_of_rows, require_columns
from kaleido_fast.data.catalogue.skipping import Skipped

BROKEN = "not a JSON object"
MOST_NESTED = 500
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class JsonlCatalogue(Columns):
    """One object a line, a product each; its keys are the columns. A key that a line lacks, and null, are an empty cell."""

    CATALOG_IS: ClassVar[str] = "file of JSON objects, one a line"

    catalog: Path
    images: Images

    @property
    def place(self) -> Path:
        return self.catalog

    def products(self, skipped: Skipped) -> Iterator[Product]:
        """All usable products, in the file's order; the others go to `skipped`.

        Raises:
            ValueError: the file or the folder cannot be read, no line is an object, or none has one of the columns.
        """
        columns = tuple(dict.fromkeys(column for _, column in self.named()))
        rows: list[CatalogueRow] = []
        keys: dict[str, None] = {}  # of all lines, in the order in which they first occur
        with opened(self.catalog) as stream:
            for number, values in _objects(stream):
                keys.update(dict.fromkeys(values if isinstance(values, dict) else ()))
                rows.append(_row(number, values, columns))
        if not keys:
            raise ValueError(f"{self.catalog}: {_nothing_there(rows)}; expected one JSON object a line")
        require_columns(self.catalog, self, list(keys))
        yield from products_of_rows(rows, self, self.images, skipped)


def _objects(lines: Iterable[bytes]) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Each line that is not blank, by its number: its keys and values, or why it has none."""
    for number, line in enumerate(lines, 1):
        if number == 1:
            line = line.removeprefix(BYTE_ORDER_MARK)
        if not line.strip():
            continue
        if _most_open(line) > MOST_NESTED:
            yield number, f"brackets within brackets, more than {MOST_NESTED} deep"
            continue
        try:
            values = json.loads(line.decode("utf-8"))
        except json.JSONDecodeError as error:
            yield number, f"{error.msg} at column {error.colno}"
        except ValueError as error:  # bytes that are not UTF-8, numbers without end
            yield number, str(error)
        else:
            yield number, values if isinstance(values, dict) else f"a JSON {type(values).__name__}"


def _most_open(line: bytes) -> int:
    """How many brackets are open at once at the most; those in texts count too, and a few hundred are no harm.

    json stops at Python's limit of recursion: where a package has raised that, it runs out of the stack instead.
    """
    if line.count(b"[") + line.count(b"{") <= MOST_NESTED:
        return 0
    return max(itertools.accumulate((byte in b"[{") - (byte in b"]}") for byte in line))


def _row(number: int, values: dict[str, Any] | str, columns: Iterable[str]) -> CatalogueRow:
    if isinstance(values, str):
        return CatalogueRow(f"line {number}", problem=BROKEN, detail=values)
    cells = {}
    for column in columns:
        cell = _cell(values.get(column))
        if cell is None:
            value = str(values[column])[:80]
            return CatalogueRow(f"line {number}", problem="no text in a column",
                       detail=f"column '{column}': {value!r}, expected text, a number or null")
        cells[column] = cell
    return CatalogueRow(f"line {number}", cells)


def _cell(value: Any) -> str | None:
    """The text of a value; None where it is none (a list, an object, half a character of two)."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value)
    is_text = not isinstance(value, list | dict) and not any("\ud800" <= letter <= "\udfff" for letter in text)
    return text if is_text else None


def _nothing_there(rows: list[CatalogueRow]) -> str:
    if not rows:
        return "empty"
    if not rows[0].detail:
        return f"the object of {rows[0].place} has no keys"
    hint = " (of one array make lines with jq -c '.[]')" if rows[0].detail == "a JSON list" else ""
    return f"{rows[0].place} is {BROKEN}: {rows[0].detail}{hint}"
