"""A catalogue as a folder alone: CATEGORY/SUBCATEGORY/NAME.jpg with its text in NAME.txt, further photographs as NAME_1.jpg."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

from kaleido_fast.data.catalogue.photograph_columns import id_of_path
from kaleido_fast.data.catalogue.photograph_files import OF_NO_PRODUCT, photograph_names
from kaleido_fast.data.catalogue.product import PhotographFile, Product
from kaleido_fast.data.catalogue.row_rules import CatalogueRow, Columns, products_of_rows
from kaleido_fast.data.catalogue.skipping import Skipped


@dataclass(frozen=True, slots=True)
class FolderCatalogue:
    """A text beside each product's first photograph; the folders above it, none to several, are its categories."""

    CATALOG_IS: ClassVar[str] = "folder of NAME.jpg and NAME.txt, in folders that name categories"

    catalog: Path

    @property
    def place(self) -> Path:
        return self.catalog

    def products(self, skipped: Skipped) -> Iterator[Product]:
        """All usable products, by path.

        Raises:
            ValueError: there is no such folder, or no photograph with a text.
        """
        if not self.catalog.is_dir():
            raise ValueError(f"{self.catalog}: no such folder")
        rows = []
        for name in photograph_names(self.catalog):
            text = self._text_beside(PurePosixPath(name))
            if text is None:
                skipped.notice(OF_NO_PRODUCT, name)
            else:
                rows.append(_row(self.catalog, name, text))
        if not rows:
            raise ValueError(f"{self.catalog}: no photograph with a text beside it; expected NAME.jpg and NAME.txt")
        columns = Columns(text=("text",), category="category", subcategory="subcategory")
        yield from products_of_rows(rows, columns, self.catalog, skipped)

    def _text_beside(self, photograph: PurePosixPath) -> PurePosixPath | None:
        """Of its own name, or of the name before the photograph's number."""
        head, _, number = photograph.stem.rpartition("_")
        for stem in (photograph.stem, head if number.isdecimal() else ""):
            text = photograph.with_name(f"{stem}.txt")
            if stem and (self.catalog / text).is_file():
                return text
        return None


def _row(catalog: Path, photograph: str, text: PurePosixPath) -> CatalogueRow:
    folders = [*text.parent.parts, "", ""]
    problem, content = "", ""
    try:
        content = (catalog / text).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        problem = "text that is no UTF-8"
    cells = {"text": content, "category": folders[0], "subcategory": folders[1] or folders[0]}
    return CatalogueRow(str(text), cells, problem, "", (PhotographFile(catalog / photograph),), id_of_path(str(text)))
