"""From rows with named columns to products: the rules that all tables share (SPEC 1)."""

import difflib
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from kaleido_fast.data.catalogue.cell_text import is_nothing, plain_text
from kaleido_fast.data.catalogue.photograph_files import canonical, photographs_by_id
from kaleido_fast.data.catalogue.product import PhotographFile, PhotographSource, Product
from kaleido_fast.data.catalogue.skipping import Skipped
from kaleido_fast.data.shards.field_text import check_fields, joined
from kaleido_fast.options import Flag, Option, OptionError

ID_RULE = "an id must not hold /, \\ or control characters, begin with a dot, or be longer than 200 bytes"
TEXT_COLUMNS = ("productDisplayName", "description")  # the text where neither columns nor fields are named
SPLIT_NAMES = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation", "test": "test"}

OptionalColumn = Annotated[str, Flag("'' where there is none", "COLUMN")]
Images = Annotated[Path, Flag("folder of <id>.jpg, <id>_1.jpg, ... (.png, .webp and others too)", "FOLDER")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Names of a table's columns; the defaults fit the Fashion Product Images table.

    Without a category ("") all products are of one, without a sub-category it is the category, without a split it is drawn
    by the product id's hash. A text of fields is the same as that of their columns under `text`, and the shards know where
    each field lies in it.
    """

    id: Annotated[str, Flag("of the products' ids", "COLUMN")] = "id"
    text: Annotated[tuple[str, ...], Flag("columns joined to the text", "COLUMN")] = ()
    field: Annotated[tuple[str, ...], Flag("in place of the text's columns: columns joined to it and kept apart in the shards, "
                                           "each under a name, such as title=productDisplayName", "NAME=COLUMN")] = ()
    category: OptionalColumn = "masterCategory"
    subcategory: OptionalColumn = "articleType"
    split: OptionalColumn = ""
    html: Annotated[str, Flag("strip, without it: texts lose the tags of web pages, and entities are decoded; keep: they stay "
                              "as they are")] = "strip"

    def __post_init__(self) -> None:
        """Raises ValueError: fields that cannot be, columns of the text beside them, or another `html` than there is."""
        check_fields(self.field)
        if self.html not in ("strip", "keep"):
            raise OptionError(Option("html"), f"={self.html!r} must be strip or keep")
        if self.field and self.text:
            raise OptionError(Option("field"), " takes the place of ", Option("text"), "; give one of them")

    @property
    def fields(self) -> dict[str, str]:
        """The column of each field by the field's name; none where the text is one piece."""
        return dict(field.split("=", 1) for field in self.field)

    @property
    def text_columns(self) -> tuple[str, ...]:
        """The columns that are joined to the text."""
        return tuple(self.fields.values()) or self.text or TEXT_COLUMNS

    def named(self) -> list[tuple[Option, str]]:
        """Each column that is read, with the option that names it."""
        optional = [(Option(name), getattr(self, name)) for name in ("category", "subcategory", "split")]
        return [(Option("id"), self.id), *((option, column) for option, column in optional if column),
                *((Option("field" if self.field else "text"), column) for column in self.text_columns)]


@dataclass(frozen=True, slots=True)
class CatalogueRow:
    """One row of a table: its text by column, or why it cannot be used."""

    place: str  # where it stands, as its reader calls it, such as "row 7"; begins what is said of it
    cells: Mapping[str, str] = field(default_factory=dict)  # a column that is not there is empty
    problem: str = ""  # a reason to count it by
    detail: str = ""  # what was found instead


def require_columns(file: Path, columns: Columns, header: Sequence[str], hint: Sequence[str | Option] = ()) -> None:
    """Refuse (ValueError) a table that lacks a column or has it twice.

    Args:
        hint: what the reader takes for the cause of a missing column, instead of the nearest name.
    """
    for option, column in columns.named():
        if column not in header:
            none_there = (", or give ", option, " '' where there is none") if option.name not in ("id", "text", "field") else ()
            raise OptionError(f"{file}: no column '{column}'", *(hint or (_nearest(column, header),)),
                              f" (it has {', '.join(header)}); name it with ", option, *none_there)
        if header.count(column) > 1:
            raise OptionError(f"{file}: {header.count(column)} columns are called '{column}'; rename all but one, or name "
                              "another with ", option)


def products_of_rows(rows: Sequence[CatalogueRow], columns: Columns, images: Path, skipped: Skipped) -> Iterator[Product]:
    """The products of rows whose photographs lie in one folder, named by the products' ids.

    Raises:
        ValueError: there is no such folder.
    """
    if not images.is_dir():
        raise OptionError(f"{images}: no such folder of photographs; give ", Option("images"))
    ids = {_id(row, columns) for row in rows if not row.problem}
    files = photographs_by_id(images, ids, skipped)
    photographs = {product: tuple(map(PhotographFile, paths)) for product, paths in files.items()}
    yield from usable_products(rows, columns, photographs, skipped)


def usable_products(
    rows: Iterable[CatalogueRow], columns: Columns, photographs: Mapping[str, tuple[PhotographSource, ...]], skipped: Skipped
) -> Iterator[Product]:
    """The products of the rows that can be used, in their order; the others go to `skipped`.

    Args:
        photographs: of each product by its id, as `canonical` spells it.
    """
    place_of: dict[str, str] = {}
    for row in rows:
        product = _product(row, columns, photographs, skipped)
        if product is None:
            continue
        if product.id in place_of:
            skipped.add("duplicate id", f"{row.place}: id {product.id} is that of {place_of[product.id]}")
            continue
        place_of[product.id] = row.place
        yield product


def split_of(product_id: str) -> str:
    """The split by SPEC 1: the first 8 bytes of SHA-256 of the id, mod 20: 0-3 test, 4 validation, else train."""
    draw = int.from_bytes(hashlib.sha256(product_id.encode()).digest()[:8], "little") % 20
    return "test" if draw < 4 else "validation" if draw == 4 else "train"


def _nearest(name: str, header: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, header, n=1, cutoff=0.4)
    return f"; did you mean '{near[0]}'?" if near else ""


def _id(row: CatalogueRow, columns: Columns) -> str:
    return canonical(row.cells.get(columns.id, "").strip())


def _cell(row: CatalogueRow, column: str) -> str:
    cell = row.cells.get(column, "").strip()
    return "" if is_nothing(cell) else cell


def _product(
    row: CatalogueRow, columns: Columns, photographs: Mapping[str, tuple[PhotographSource, ...]], skipped: Skipped
) -> Product | None:
    if row.problem:
        skipped.add(row.problem, f"{row.place}{row.detail and f': {row.detail}'}")
        return None
    name = _id(row, columns)
    if not name.isprintable() or not name or "/" in name or "\\" in name or name[0] == "." or len(name.encode()) > 200:
        skipped.add("unusable id", f"{row.place}: id {name[:80]!r}, {ID_RULE}")
        return None
    texts = [_cell(row, column) for column in columns.text_columns]
    if columns.html == "strip":
        texts = [plain_text(text) for text in texts]
    text = joined(texts)
    if not text:
        skipped.add("empty text", f"{row.place}: id {name}")
        return None
    split = SPLIT_NAMES.get(_cell(row, columns.split).lower(), "") if columns.split else split_of(name)
    if not split:
        value = row.cells.get(columns.split, "")
        skipped.add("unknown split", f"{row.place}: id {name}: {value!r}, expected {', '.join(SPLIT_NAMES)}")
        return None
    if name not in photographs:
        skipped.add("no photograph", f"{row.place}: id {name}")
        return None
    category = _cell(row, columns.category) if columns.category else ""
    subcategory = _cell(row, columns.subcategory) if columns.subcategory else category
    fields = tuple(zip(columns.fields, texts, strict=True)) if columns.field else ()
    return Product(name, text, category, subcategory, split, photographs[name], row.place, fields)
