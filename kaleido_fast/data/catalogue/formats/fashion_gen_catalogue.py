"""Fashion-Gen's published HDF5 files: pixels (N, 256, 256, 3) uint8 and a column of latin-1 texts or numbers (N, 1) each.

The one place that imports h5py.
"""

import functools
import io
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, ClassVar

from kaleido_fast.data.catalogue.product import Product
from kaleido_fast.data.catalogue.row_rules import (
    CatalogueRow, Columns, IdColumn, OptionalColumn, products_of_rows, require_columns,
)
from kaleido_fast.data.catalogue.skipping import Skipped

PIXELS = "input_image"
SPLIT = "split"  # a column of ours: what the file's name says
BLOCK = 4096  # rows of a column at a time


@dataclass(frozen=True, slots=True)
class H5Photograph:
    """A row of the pixels."""

    file: Path
    row: int

    @property
    def name(self) -> str:
        return f"{self.file.name}, row {self.row}"

    def read(self) -> bytes:
        from PIL import Image

        out = io.BytesIO()
        Image.fromarray(_opened(self.file)[PIXELS][self.row]).save(out, "BMP")
        return out.getvalue()


@dataclass(frozen=True, slots=True)
class FashionGenCatalogue(Columns):
    """Rows of one or several files; those of a product id are its photographs. A column `split` says train or validation."""

    CATALOG_IS: ClassVar[str] = "HDF5 files of Fashion-Gen, one or several"
    TEXTS: ClassVar[tuple[str, ...]] = ("input_name", "input_description")

    catalog: tuple[Path, ...]
    _: KW_ONLY
    id: IdColumn = "input_productID"
    category: OptionalColumn = "input_category"
    subcategory: OptionalColumn = "input_subcategory"

    @property
    def place(self) -> Path:
        return self.catalog[0]

    def products(self, skipped: Skipped) -> Iterator[Product]:
        """All usable products, in the files' order.

        Raises:
            ValueError: a file cannot be read, h5py is not there, or a column is missing.
        """
        rows = [row for file in self.catalog for row in self._rows(file)]
        if not rows:
            raise ValueError(f"{self.place}: no row there")
        yield from products_of_rows(rows, self, Path(), skipped)

    def _rows(self, file: Path) -> Iterator[CatalogueRow]:
        if not file.is_file():
            raise ValueError(f"{file}: no such catalogue")
        try:
            h5 = _opened(file)
        except OSError as error:
            raise ValueError(f"{file}: cannot be read as HDF5: {error}") from None
        require_columns(file, self, [*h5, SPLIT])
        if PIXELS not in h5 or h5[PIXELS].dtype != "uint8" or h5[PIXELS].ndim != 4:
            raise ValueError(f"{file}: no '{PIXELS}' of (N, H, W, 3) uint8; expected a file of Fashion-Gen")
        split = next((name for name in ("train", "validation", "test") if name in file.stem), "")
        columns = [column for _, column in self.named() if column in h5]
        for start in range(0, len(h5[PIXELS]), BLOCK):
            texts = {column: h5[column][start : start + BLOCK].reshape(-1) for column in columns}
            for place in range(min(BLOCK, len(h5[PIXELS]) - start)):
                row = start + place
                cells = {column: _text(values[place]) for column, values in texts.items()}
                yield CatalogueRow(f"{file.name}, row {row}", cells | {SPLIT: split},
                                   photographs=(H5Photograph(file.absolute(), row),))


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


@functools.lru_cache(maxsize=4)
def _opened(file: Path) -> Any:
    """The open file: one a process."""
    try:
        import h5py
    except ImportError:
        raise ValueError("HDF5 files need h5py: pip install 'kaleido_fast[h5]'") from None
    return h5py.File(file, "r")
