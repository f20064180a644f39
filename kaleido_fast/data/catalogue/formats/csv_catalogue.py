"""A catalogue as a CSV file with a header and a folder of photographs (SPEC 1)."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from kaleido_fast.data.catalogue.formats.text_file import opened
from kaleido_fast.data.catalogue.product import Product
from kaleido_fast.data.catalogue.row_rules import CatalogueRow, Columns, Images, products_of_rows, require_columns
from kaleido_fast.data.catalogue.skipping import Skipped
from kaleido_fast.options import Flag, Option, OptionError

END = "end of the catalogue"  # a row of ours behind the last one
TAB = "tab"  # how the option spells it
DELIMITERS = {";": "';'", "\t": TAB, "|": "'|'"}  # besides the comma: how the option spells them on a command line


@dataclass(frozen=True, slots=True)
class CsvCatalogue(Columns):
    """One row a product; the first row names the columns."""

    CATALOG_IS: ClassVar[str] = "CSV file with a header"

    catalog: Path
    images: Images
    encoding: Annotated[str, Flag("of the CSV file; utf-8 without it")] = "utf-8"
    delimiter: Annotated[str, Flag("between its columns, such as ';' or tab; a comma without it", "CHARACTER")] = ","

    def __post_init__(self) -> None:
        Columns.__post_init__(self)
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
        header, rows = _parse(self.catalog, self._text(), "\t" if self.delimiter == TAB else self.delimiter)
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


def _parse(file: Path, text: str, delimiter: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header, and each row with the number of its first line.

    A quote that is never closed would silently swallow all rows behind it: a last row of ours must come out as it is.
    """
    reader = csv.reader(io.StringIO(f"{text}\n{END}\n", newline=""), delimiter=delimiter)
    rows: list[tuple[int, list[str]]] = []
    first = 1
    try:
        for cells in reader:
            if cells:
                rows.append((first, cells))
            first = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{file}, line {first}: not valid CSV: {error}; is a quote left open there?") from None
    number, last = rows.pop()
    if last != [END]:
        raise ValueError(f"{file}, line {number}: not valid CSV: a quote is left open there, up to the end of the file")
    return rows[0][1], rows[1:]
