"""A catalogue as a CSV file with a header and a folder of photographs (SPEC 1)."""

import csv
import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from kaleido_fast.data.catalogue.formats.text_file import opened
from kaleido_fast.data.catalogue.product import Product
from kaleido_fast.data.catalogue.row_rules import CatalogueRow, Columns, Images, products_of_rows, require_columns
from kaleido_fast.data.catalogue.skipping import Skipped
from kaleido_fast.options import Flag, Option, OptionError

END = "end of the catalogue"  # a row of ours behind the last one
TAB = "tab"  # how the option spells it
DELIMITERS = {";": "';'", "\t": TAB, "|": "'|'"}  # besides the comma: how the option spells them on a command line


Quoting = Literal["auto", "quotes", "none"]


@dataclass(frozen=True, slots=True)
class CsvCatalogue(Columns):
    """One row a product; the first row names the columns."""

    CATALOG_IS: ClassVar[str] = "CSV file with a header"

    catalog: Path
    images: Images
    encoding: Annotated[str, Flag("of the CSV file; utf-8 without it")] = "utf-8"
    delimiter: Annotated[str, Flag("between its columns, such as ';' or tab; a comma without it", "CHARACTER")] = ","
    quoting: Annotated[str, Flag("none: a quote is a letter like others, as in exports of MySQL and Spark; auto, without it: "
                                 "quoted fields, refused where one holds whole rows; quotes: never refused")] = "auto"

    def __post_init__(self) -> None:
        Columns.__post_init__(self)
        if self.quoting not in get_args(Quoting):
            raise OptionError(Option("quoting"), f"={self.quoting!r} must be one of {', '.join(get_args(Quoting))}")
        if self.delimiter != TAB and (len(self.delimiter) != 1 or self.delimiter in '"\r\n '):
            raise OptionError(Option("delimiter"), f"={self.delimiter!r} must be one character such as ';', or tab")

    @property
    def place(self) -> Path:
        return self.catalog

    def products(self, skipped: Skipped) -> Iterator[Product]:
        """All usable products, in the file's order; the others go to `skipped`.

        Raises:
            ValueError: the file or the folder cannot be read, a column is missing, or there are no rows.
        """
        header, rows = _parse(self.catalog, self._text(), "\t" if self.delimiter == TAB else self.delimiter, self.quoting)
        require_columns(self.catalog, self, header, _delimiter_hint(header))
        if not rows:
            raise ValueError(f"{self.catalog}: a header and no rows; expected one row a product")
        yield from products_of_rows([_row(number, header, cells) for number, cells in rows], self, self.images, skipped)

    def _text(self) -> str:
        encoding = "utf-8-sig" if self.encoding.lower() in ("utf-8", "utf8") else self.encoding
        try:
            with opened(self.catalog) as stream:
                text = io.TextIOWrapper(stream, encoding).read()
        except UnicodeDecodeError as error:
            raise OptionError(f"{self.catalog}: byte {error.start} is not {self.encoding}; name the file's own with ",
                              Option("encoding"), ", such as latin-1") from None
        except LookupError as error:
            raise ValueError(f"{self.catalog}: cannot be read: {error}") from None
        if not text.strip():
            raise ValueError(f"{self.catalog}: empty; expected a CSV file with a header")
        return text


def _delimiter_hint(header: Sequence[str]) -> tuple[str | Option, ...]:
    """What is said of a missing column where the header was not taken apart."""
    for delimiter, spelling in DELIMITERS.items():
        if len(header) == 1 and delimiter in header[0]:
            return ("; the header is one field, give ", Option("delimiter"),
                    f" {spelling} if that is what stands between its columns")
    return ()


def _row(number: int, header: Sequence[str], cells: Sequence[str]) -> CatalogueRow:
    if len(cells) != len(header):
        return CatalogueRow(f"row {number}", problem="wrong number of fields")
    return CatalogueRow(f"row {number}", dict(zip(header, cells, strict=True)))


def _parse(file: Path, text: str, delimiter: str, quoting: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header, and each row with the number of its first line.

    A quote that is never closed would silently swallow all rows behind it: a last row of ours must come out as it is.
    """
    rules: dict[str, Any] = {"quoting": csv.QUOTE_NONE} if quoting == "none" else {}
    reader = csv.reader(io.StringIO(f"{text}\n{END}\n", newline=""), delimiter=delimiter, **rules)
    rows: list[tuple[int, list[str]]] = []
    first = 1
    most_before = csv.field_size_limit(sys.maxsize)  # a field may hold a picture in base64
    try:
        for cells in reader:
            if cells:
                rows.append((first, cells))
            first = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{file}, line {first}: not valid CSV: {error}; is a quote left open there?") from None
    finally:
        csv.field_size_limit(most_before)
    number, last = rows.pop()
    if last != [END]:
        raise OptionError(f"{file}, line {number}: not valid CSV: a quote is left open there, up to the end of the file; close "
                          "it, or give ", Option("quoting"), " none if quotes are letters there")
    if quoting == "auto":
        for number, cells in rows[1:]:
            swallowed = _swallowed(cells, delimiter, len(rows[0][1]))
            if swallowed:
                raise OptionError(f"{file}, line {number}: a quoted field holds {swallowed} lines that look like rows; give ",
                                  Option("quoting"), " none if quotes are letters there, ", Option("quoting"),
                                  " quotes if the field is meant so")
    return rows[0][1], rows[1:]


def _swallowed(cells: Sequence[str], delimiter: str, columns: int) -> int:
    """Lines of a field that holds the delimiter as often as that many rows do; 0 where none does.

    A delimiter before a space is left out, for so it stands in prose.
    """
    for cell in cells:
        lines = cell.strip().count("\n")
        if lines and columns > 1:
            delimiters = cell.count(delimiter) - cell.count(delimiter + " ")
            if delimiters >= lines * (columns - 1):
                return lines
    return 0
