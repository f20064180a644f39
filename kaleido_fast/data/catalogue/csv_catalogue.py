"""Reading a catalogue: a CSV file with a header and a folder of photographs (SPEC 1)."""

import csv
import difflib
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kaleido_fast.data.catalogue.photograph_files import canonical, photographs_by_id
from kaleido_fast.data.catalogue.skipped import Skipped

END = "end of the catalogue"  # a row of ours behind the last one
DELIMITERS = {";": "';'", "\t": "tab", "|": "'|'"}  # besides the comma: how a command line has them
ID_RULE = "an id must not hold /, \\ or control characters, begin with a dot, or be longer than 200 bytes"
SPLIT_NAMES = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation", "test": "test"}


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of the catalogue's columns; the defaults fit the Fashion Product Images table.

    Without a category ("") all products are of one, without a sub-category it is the category.
    """

    id: str = "id"
    text: tuple[str, ...] = ("productDisplayName", "description")
    category: str = "masterCategory"
    subcategory: str = "articleType"
    split: str = ""  # none: by the product id's hash


@dataclass(frozen=True, slots=True)
class Product:
    """One row of the catalogue."""

    id: str
    text: str
    category: str
    subcategory: str
    split: str
    photographs: tuple[Path, ...]
    row: int  # line number in the file, the header is 1


def read_catalogue(
    file: Path, images: Path, columns: Columns, encoding: str, skipped: Skipped, delimiter: str = ","
) -> list[Product]:
    """All usable products, in the file's order; the others go to `skipped`.

    Raises:
        ValueError: the file or the folder cannot be read, a column is missing, or there are no rows.
    """
    rows = _read_rows(file, encoding, columns, delimiter)
    if not images.is_dir():
        raise ValueError(f"{images}: no such folder of photographs; give --images")
    ids = {_id(row, columns) for _, row in rows if row}
    photographs = photographs_by_id(images, ids, skipped)
    products: dict[str, Product] = {}
    for number, row in rows:
        product = _product(number, row, columns, photographs, skipped)
        if product is None:
            continue
        if product.id in products:
            skipped.add("duplicate id", f"row {number}: id {product.id} is on row {products[product.id].row} already")
            continue
        products[product.id] = product
    if not rows:
        raise ValueError(f"{file}: a header and no rows; expected one row a product")
    return list(products.values())


def split_of(product_id: str) -> str:
    """The split by SPEC 1: the first 8 bytes of SHA-256 of the id, mod 20: 0-3 test, 4 validation, else train."""
    draw = int.from_bytes(hashlib.sha256(product_id.encode()).digest()[:8], "little") % 20
    return "test" if draw < 4 else "validation" if draw == 4 else "train"


def _read_rows(file: Path, encoding: str, columns: Columns, delimiter: str) -> list[tuple[int, dict[str, str]]]:
    try:
        text = file.read_text(encoding="utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding)
    except FileNotFoundError:
        raise ValueError(f"{file}: no such catalogue") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: byte {error.start} is not {encoding}; name the file's own with --encoding, such as "
                         "latin-1") from None
    except (OSError, LookupError) as error:
        raise ValueError(f"{file}: cannot be read: {error}") from None
    if not text.strip():
        raise ValueError(f"{file}: empty; expected a CSV file with a header")
    header, rows = _parse(file, text, delimiter)
    _check_header(file, header, columns)
    return [(number, dict(zip(header, fields, strict=True)) if len(fields) == len(header) else {})
            for number, fields in rows]


def _parse(file: Path, text: str, delimiter: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header, and each row with the number of its first line.

    A quote that is never closed would silently swallow all rows behind it: a last row of ours must come out as it is.
    """
    reader = csv.reader(io.StringIO(f"{text}\n{END}\n", newline=""), delimiter=delimiter)
    rows: list[tuple[int, list[str]]] = []
    first = 1
    try:
        for fields in reader:
            if fields:
                rows.append((first, fields))
            first = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{file}, line {first}: not valid CSV: {error}; is a quote left open there?") from None
    number, last = rows.pop()
    if last != [END]:
        raise ValueError(f"{file}, line {number}: not valid CSV: a quote is left open there, up to the end of the file")
    return rows[0][1], rows[1:]


def _check_header(file: Path, header: Sequence[str], columns: Columns) -> None:
    optional = {"--category": columns.category, "--subcategory": columns.subcategory, "--split": columns.split}
    named = [("--id", columns.id), *((flag, name) for flag, name in optional.items() if name),
             *(("--text", name) for name in columns.text)]
    for flag, name in named:
        if name not in header:
            raise ValueError(f"{file}: no column '{name}'{_hint(name, header)} (it has {', '.join(header)}); name it with "
                             f"{flag}{_none_there(flag, flag in optional)}")
        if header.count(name) > 1:
            raise ValueError(f"{file}: {header.count(name)} columns are called '{name}'; rename all but one, or name "
                             f"another with {flag}")


def _hint(name: str, header: Sequence[str]) -> str:
    if len(header) == 1:
        for delimiter, shown in DELIMITERS.items():
            if delimiter in header[0]:
                return f"; the header is one field, give --delimiter {shown} if that is what stands between its columns"
    near = difflib.get_close_matches(name, header, n=1, cutoff=0.4)
    return f"; did you mean '{near[0]}'?" if near else ""


def _none_there(flag: str, optional: bool) -> str:
    return f", or give {flag} '' where there is none" if optional else ""


def _id(row: dict[str, str], columns: Columns) -> str:
    return canonical(row[columns.id].strip())


def _product(
    number: int, row: dict[str, str], columns: Columns, photographs: dict[str, tuple[Path, ...]], skipped: Skipped
) -> Product | None:
    if not row:
        skipped.add("wrong number of fields", f"row {number}")
        return None
    name = _id(row, columns)
    if not name.isprintable() or not name or "/" in name or "\\" in name or name[0] == "." or len(name.encode()) > 200:
        skipped.add("unusable id", f"row {number}: id {name[:80]!r}, {ID_RULE}")
        return None
    parts = [row[column].strip() for column in columns.text]
    text = ". ".join(part for part in parts if part)
    if not text:
        skipped.add("empty text", f"row {number}: id {name}")
        return None
    split = split_of(name)
    if columns.split:
        split = SPLIT_NAMES.get(row[columns.split].strip().lower(), "")
        if not split:
            skipped.add("unknown split", f"row {number}: id {name}: {row[columns.split]!r}, expected {', '.join(SPLIT_NAMES)}")
            return None
    if name not in photographs:
        skipped.add("no photograph", f"row {number}: id {name}")
        return None
    category = row[columns.category].strip() if columns.category else ""
    subcategory = row[columns.subcategory].strip() if columns.subcategory else category
    return Product(name, text, category, subcategory, split, photographs[name], number)
