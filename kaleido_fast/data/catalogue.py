"""Reading a catalogue: a CSV file with a header and a folder of photographs (SPEC 1)."""

import csv
import difflib
import hashlib
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

MAX_PHOTOGRAPHS = 64  # of one product
END = "end of the catalogue"  # a row of ours behind the last one
SPLIT_NAMES = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation", "test": "test"}


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of the catalogue's columns; the defaults fit the Fashion Product Images table."""

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


@dataclass(slots=True)
class Skipped:
    """Rows and photographs left out: counted by reason, the first of each named."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, what: str, most: int = 20) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + 1
        examples = self.examples.setdefault(reason, [])
        if len(examples) < most:
            examples.append(what)

    def total(self) -> int:
        return sum(self.counts.values())


def read_catalogue(
    file: Path, images: Path, columns: Columns, encoding: str, skipped: Skipped
) -> list[Product]:
    """All usable products, in the file's order; the others go to `skipped`.

    Raises:
        ValueError: the file or the folder cannot be read, a column is missing, or there are no rows.
    """
    rows = _read_rows(file, encoding, columns)
    if not images.is_dir():
        raise ValueError(f"{images}: no such folder of photographs; give --images")
    photographs = _photographs_by_id(images)
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


def _read_rows(file: Path, encoding: str, columns: Columns) -> list[tuple[int, dict[str, str]]]:
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
    header, rows = _parse(file, text)
    _check_header(file, header, columns)
    return [(number, dict(zip(header, fields, strict=True)) if len(fields) == len(header) else {})
            for number, fields in rows]


def _parse(file: Path, text: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header, and each row with the number of its first line.

    A quote that is never closed would silently swallow all rows behind it: a last row of ours must come out as it is.
    """
    reader = csv.reader(io.StringIO(f"{text}\n{END}\n", newline=""))
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
    flags = {"--id": columns.id, "--category": columns.category, "--subcategory": columns.subcategory}
    if columns.split:
        flags["--split"] = columns.split
    for flag, name in [*flags.items(), *(("--text", name) for name in columns.text)]:
        if name not in header:
            near = difflib.get_close_matches(name, header, n=1, cutoff=0.4)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise ValueError(f"{file}: no column '{name}'{hint} (it has {', '.join(header)}); name it with {flag}")
        if header.count(name) > 1:
            raise ValueError(f"{file}: {header.count(name)} columns are called '{name}'; rename all but one, or name "
                             f"another with {flag}")


def _product(
    number: int, row: dict[str, str], columns: Columns, photographs: dict[str, tuple[Path, ...]], skipped: Skipped
) -> Product | None:
    if not row:
        skipped.add("wrong number of fields", f"row {number}")
        return None
    name = row[columns.id].strip()
    if not name.isprintable() or not name or "/" in name or "\\" in name or name[0] == "." or len(name.encode()) > 200:
        skipped.add("unusable id", f"row {number}: id {name[:80]!r}")
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
            skipped.add("unknown split", f"row {number}: id {name}: {row[columns.split]!r}")
            return None
    if name not in photographs:
        skipped.add("no photograph", f"row {number}: id {name}")
        return None
    return Product(name, text, row[columns.category].strip(), row[columns.subcategory].strip(), split,
                   photographs[name], number)


def _photographs_by_id(images: Path) -> dict[str, tuple[Path, ...]]:
    """<id>.jpg or <id>_0.jpg, then <id>_1.jpg, <id>_2.jpg, ...: one listing of the folder, not a look-up a product."""
    found: dict[str, dict[int, Path]] = {}
    with os.scandir(images) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            stem, dot, ending = entry.name.rpartition(".")
            if ending.lower() not in ("jpg", "jpeg") or not dot or not entry.is_file():
                continue
            head, underscore, number = stem.rpartition("_")
            found.setdefault(stem, {})[0] = images / entry.name
            if underscore and number.isdigit() and int(number) < MAX_PHOTOGRAPHS:
                found.setdefault(head, {}).setdefault(int(number), images / entry.name)
    return {name: tuple(path for _, path in sorted(numbered.items())) for name, numbered in found.items()}
