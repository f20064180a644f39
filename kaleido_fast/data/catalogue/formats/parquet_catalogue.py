"""A catalogue as Parquet files: photographs in a column, as bytes or as paths, or in a folder."""

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
class ParquetCatalogue(Columns):
    """Rows of one or several files; a column of photographs may hold their bytes.

    An empty name for the column of ids numbers the rows.
    """

    CATALOG_IS: ClassVar[str] = "Parquet files, one or several"

    catalog: tuple[Path, ...]
    images: Images = Path()

    @property
    def place(self) -> Path:
        return self.catalog[0]

    def products(self, skipped: Skipped) -> Iterator[Product]:
        """All usable products; the photographs' bytes are copied to a temporary file (TMPDIR).

        Raises:
            ValueError: a file cannot be read, pyarrow is not there, or a column is missing.
        """
        spool = Spool()
        rows = list(rows_of_tables([Table(file) for file in self.catalog], self, spool))
        yield from products_of_rows(rows, self, self.images, skipped)
