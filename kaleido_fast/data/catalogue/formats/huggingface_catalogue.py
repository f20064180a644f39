"""A catalogue as a folder that `datasets` of Hugging Face wrote (save_to_disk); that package is not needed."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from kaleido_fast.data.catalogue.formats.arrow_tables import Table, rows_of_tables
from kaleido_fast.data.catalogue.formats.file_parts import Spool
from kaleido_fast.data.catalogue.product import Product
from kaleido_fast.data.catalogue.row_rules import Columns, Images, products_of_rows
from kaleido_fast.data.catalogue.skipping import Skipped


@dataclass(frozen=True, slots=True)
class HuggingFaceCatalogue(Columns):
    """Rows of a data set, or of all splits of one; then a column `split` names them.

    An empty name for the column of ids numbers the rows.
    """

    CATALOG_IS: ClassVar[str] = "folder that save_to_disk of `datasets` wrote"

    catalog: Path
    images: Images = Path()

    @property
    def place(self) -> Path:
        return self.catalog

    def products(self, skipped: Skipped) -> Iterator[Product]:
        """All usable products, split after split.

        Raises:
            ValueError: there is no such folder or file, pyarrow is not there, or a column is missing.
        """
        tables = [Table(file) for file in sorted(self.catalog.glob("*.arrow"))] or [
            Table(file, file.parent.name) for file in sorted(self.catalog.glob("*/*.arrow"))]
        if not tables:
            raise ValueError(f"{self.catalog}: no .arrow file there; expected a folder written by save_to_disk of `datasets`")
        spool = Spool()
        rows = list(rows_of_tables(tables, self, spool))
        yield from products_of_rows(rows, self, self.images, skipped)
