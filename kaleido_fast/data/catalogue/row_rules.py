"""From rows with named columns to products: the rules that all tables share (SPEC 1)."""

import dataclasses
import difflib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

from kaleido_fast.data.catalogue.cell_text import is_nothing, plain_text
from kaleido_fast.data.catalogue.photograph_columns import NamedPhotographs, id_of_path, paths_of
from kaleido_fast.data.catalogue.photograph_files import (
    MAX_PHOTOGRAPHS, NearMisses, canonical, photograph_names, photographs_by_id,
)
from kaleido_fast.data.catalogue.product import PhotographFile, PhotographSource, Product
from kaleido_fast.data.catalogue.skipping import Skipped
from kaleido_fast.data.shards.field_text import check_fields, joined
from kaleido_fast.options import Flag, Option, OptionError

ID_RULE = "an id must not hold /, \\ or control characters, begin with a dot, or be longer than 200 bytes"
TEXT_COLUMNS = ("productDisplayName", "description")  # the text where neither columns nor fields are named
SPLIT_NAMES = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation", "test": "test"}

IdColumn = Annotated[str, Flag("of the products' ids", "COLUMN")]
OptionalColumn = Annotated[str, Flag("'' where there is none", "COLUMN")]
Images = Annotated[Path, Flag("folder of <id>.jpg, <id>_1.jpg, ... (.png, .webp and others too)", "FOLDER")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Names of a table's columns; the defaults fit the Fashion Product Images table.

    Without a category ("") all products are of one, without a sub-category it is the category, without a split it is drawn
    by the product id's hash. A text of fields is the same as that of their columns under `text`, and the shards know where
    each field lies in it.
    """

    TEXTS: ClassVar[tuple[str, ...]] = TEXT_COLUMNS

    id: IdColumn = "id"
    text: Annotated[tuple[str, ...], Flag("columns joined to the text", "COLUMN")] = ()
    field: Annotated[tuple[str, ...], Flag("in place of the text's columns: columns joined to it and kept apart in the shards, "
                                           "each under a name, such as title=productDisplayName", "NAME=COLUMN")] = ()
    category: OptionalColumn = "masterCategory"
    subcategory: OptionalColumn = "articleType"
    split: OptionalColumn = ""
    image: Annotated[str, Flag("of paths under the folder of photographs, several in a cell or in several rows of an id; "
                               "ids name them without it. Where it is the ids' column too, paths are ids", "COLUMN")] = ""
    product: Annotated[str, Flag("by which rows are gathered into products, in place of the ids; those then name the rows' "
                                 "photographs", "COLUMN")] = ""
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
        return tuple(self.fields.values()) or self.text or self.TEXTS

    def named(self) -> list[tuple[Option, str]]:
        """Each column that is read, with the option that names it."""
        optional = [(Option(name), getattr(self, name)) for name in ("category", "subcategory", "split", "image", "product")]
        ids = [(Option("id"), self.id)] if self.id and not (self.product and self.image) else []
        return [*ids, *((option, column) for option, column in optional if column),
                *((Option("field" if self.field else "text"), column) for column in self.text_columns)]


@dataclass(frozen=True, slots=True)
class CatalogueRow:
    """One row of a table: its text by column, or why it cannot be used."""

    place: str  # where it stands, as its reader calls it, such as "row 7"; begins what is said of it
    cells: Mapping[str, str] = field(default_factory=dict)  # a column that is not there is empty
    problem: str = ""  # a reason to count it by
    detail: str = ""  # what was found instead
    photographs: tuple[PhotographSource, ...] = ()  # where the table itself holds them
    product: str = ""  # the id, where it is not that of the column


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
    """The products of rows whose photographs lie in one folder and are named by ids or by a column, or are in the rows.

    Raises:
        ValueError: there is no such folder.
    """
    are_held = any(row.photographs for row in rows)
    if not are_held and not images.is_dir():
        raise OptionError(f"{images}: no such folder of photographs; give ", Option("images"))
    if are_held or columns.image or columns.product:
        yield from _gathered(rows, columns, images, skipped, are_held)
        return
    ids = {_id(row, columns) for row in rows if not row.problem}
    files = photographs_by_id(images, ids, skipped)
    near = NearMisses(photograph_names(images) if len(files) < len(ids) else ())
    photographs = {product: tuple(map(PhotographFile, paths)) for product, paths in files.items()}
    yield from usable_products(rows, columns, photographs, skipped, near.of)


def usable_products(
    rows: Iterable[CatalogueRow], columns: Columns, photographs: Mapping[str, tuple[PhotographSource, ...]], skipped: Skipped,
    why_none: Callable[[str], str] = lambda product: "",
) -> Iterator[Product]:
    """The products of the rows that can be used, in their order; the others go to `skipped`.

    Args:
        photographs: of each product by its id, as `canonical` spells it.
        why_none: what is said of a product that has none.
    """
    place_of: dict[str, str] = {}
    for row in rows:
        product = _product(row, columns, photographs, skipped, why_none)
        if product is None:
            continue
        if product.id in place_of:
            skipped.add("duplicate id", f"{row.place}: id {product.id} is that of {place_of[product.id]}")
            continue
        place_of[product.id] = row.place
        yield product


def _gathered(
    rows: Sequence[CatalogueRow], columns: Columns, images: Path, skipped: Skipped, are_held: bool
) -> Iterator[Product]:
    """One product of all rows of an id: of each column the first cell that is not empty, and the photographs of all."""
    named, by_row = NamedPhotographs(images), {}
    if not are_held and not columns.image:
        by_row = photographs_by_id(images, {_row_id(row, columns) for row in rows if not row.problem}, skipped)
    gathered: dict[str, CatalogueRow] = {}
    photographs: dict[str, dict[PhotographSource, None]] = {}
    missing: dict[str, list[str]] = {}
    for number, row in enumerate(rows):
        product = f"\n{number}" if row.problem else _gathered_id(row, columns, images)
        before = gathered.get(product)
        cells = dict(row.cells) if before is None else {
            column: _cell(before, column) or cell for column, cell in row.cells.items()}
        gathered[product] = dataclasses.replace(before or row, cells=cells, product=product)
        sources: Sequence[PhotographSource] = row.photographs
        if columns.image and not are_held:
            sources, absent = named.of(row.cells.get(columns.image, ""))
            missing.setdefault(product, []).extend(f"{row.place}: {what}" for what in absent)
        elif not are_held:
            sources = [PhotographFile(path) for path in by_row.get(_row_id(row, columns), ())]
        for source in sources:
            of_product = photographs.setdefault(product, {})
            if source not in of_product and len(of_product) >= MAX_PHOTOGRAPHS:
                skipped.add(f"photograph number above {MAX_PHOTOGRAPHS - 1}", f"{row.place}: {source.name}")
            else:
                of_product[source] = None
    for product in photographs:
        for what in missing.get(product, ()):
            skipped.add("no photograph", what)
    yield from usable_products(
        gathered.values(), columns, {product: tuple(sources) for product, sources in photographs.items()}, skipped,
        lambda product: "".join(f"; {what}" for what in missing.get(product, ())[:1]))


def split_of(product_id: str) -> str:
    """The split by SPEC 1: the first 8 bytes of SHA-256 of the id, mod 20: 0-3 test, 4 validation, else train."""
    draw = int.from_bytes(hashlib.sha256(product_id.encode()).digest()[:8], "little") % 20
    return "test" if draw < 4 else "validation" if draw == 4 else "train"


def _nearest(name: str, header: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, header, n=1, cutoff=0.4)
    return f"; did you mean '{near[0]}'?" if near else ""


def _id(row: CatalogueRow, columns: Columns) -> str:
    return row.product or canonical(row.cells.get(columns.product or columns.id, "").strip())


def _row_id(row: CatalogueRow, columns: Columns) -> str:
    return canonical(row.cells.get(columns.id, "").strip())


def _gathered_id(row: CatalogueRow, columns: Columns, images: Path) -> str:
    if not row.product and columns.image and columns.id in ("", columns.image) and not columns.product:
        return canonical(id_of_path("".join(paths_of(row.cells.get(columns.image, ""), images)[:1])))
    return _id(row, columns)


def _cell(row: CatalogueRow, column: str) -> str:
    cell = row.cells.get(column, "").strip()
    return "" if is_nothing(cell) else cell


def _product(
    row: CatalogueRow, columns: Columns, photographs: Mapping[str, tuple[PhotographSource, ...]], skipped: Skipped,
    why_none: Callable[[str], str],
) -> Product | None:
    if row.problem:
        skipped.add(row.problem, f"{row.place}{row.detail and f': {row.detail}'}")
        return None
    name = _id(row, columns)
    if not name.isprintable() or not name or "/" in name or "\\" in name or name[0] == "." or len(name.encode()) > 200:
        is_path = "/" in name and not columns.image
        skipped.add("unusable id", f"{row.place}: id {name[:80]!r}, {ID_RULE}"
                    + ("; where it is a photograph's path, give its column as that of the photographs too" if is_path else ""))
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
        skipped.add("no photograph", f"{row.place}: id {name}{why_none(name)}")
        return None
    category = _cell(row, columns.category) if columns.category else ""
    subcategory = _cell(row, columns.subcategory) if columns.subcategory else category
    fields = tuple(zip(columns.fields, texts, strict=True)) if columns.field else ()
    return Product(name, text, category, subcategory, split, photographs[name], row.place, fields)
