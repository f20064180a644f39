"""Tables of Apache Arrow: Parquet files and the files of a Hugging Face data set. The one place that imports pyarrow."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kaleido_fast.data.catalogue.formats.file_parts import FilePart, Spool
from kaleido_fast.data.catalogue.product import PhotographSource
from kaleido_fast.data.catalogue.row_rules import CatalogueRow, Columns, require_columns

BATCH = 1024  # rows of a Parquet file at a time
SPLIT = "split"  # the column that a table is taken to have where its data set has splits


@dataclass(frozen=True, slots=True)
class Table:
    """A file of a table, and the split of its data set that it belongs to."""

    file: Path
    split: str = ""


def arrow() -> Any:
    """The package.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError:
        raise ValueError("Parquet files and data sets of Hugging Face need pyarrow: "
                         "pip install 'kaleido_fast[parquet]'") from None
    return pyarrow


def rows_of_tables(tables: Sequence[Table], columns: Columns, spool: Spool) -> Iterator[CatalogueRow]:
    """The rows of all files; photographs that the column of them holds stay in the file, or go to `spool` where it is packed.

    Raises:
        ValueError: a file cannot be read, or lacks a column.
    """
    pa = arrow()
    number = 0
    for table in tables:
        try:
            batches, schema, whole = _opened(pa, table.file)
            names = list(schema.names) + ([SPLIT] if table.split and SPLIT not in schema.names else [])
            require_columns(table.file, columns, names)
            labels = _labels(schema)
            for batch in batches:
                for row in _rows(batch, columns, labels, table, whole, spool):
                    number += 1
                    yield CatalogueRow(f"{table.file.name}, row {number}", row.cells, row.problem, row.detail, row.photographs,
                                       row.product or ("" if columns.id else f"row{number}"))
        except FileNotFoundError:
            raise ValueError(f"{table.file}: no such catalogue") from None
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{table.file}: cannot be read: {error}") from None
    spool.flush()


def _opened(pa: Any, file: Path) -> tuple[Iterator[Any], Any, Any]:
    """Batches of rows, their schema, and the file's bytes in memory where batches lie in them."""
    with file.open("rb") as stream:
        is_parquet = stream.read(4) == b"PAR1"
    if is_parquet:
        parquet = pa.parquet.ParquetFile(file)
        return parquet.iter_batches(BATCH), parquet.schema_arrow, None
    whole = pa.memory_map(str(file)).read_buffer()
    try:
        reader = pa.ipc.open_stream(whole)
    except pa.ArrowInvalid:
        reader = pa.ipc.open_file(whole)
        return (reader.get_batch(number) for number in range(reader.num_record_batches)), reader.schema, whole
    return iter(reader), reader.schema, whole


def _rows(
    batch: Any, columns: Columns, labels: dict[str, list[str]], table: Table, whole: Any, spool: Spool
) -> Iterator[CatalogueRow]:
    held = {column for _, column in columns.named() if column in batch.schema.names}
    image = batch.column(columns.image) if columns.image in held else None
    are_held = image is not None and "string" not in str(image.type).replace("path: string", "")
    texts = {column: batch.column(column).to_pylist() for column in held if column != columns.image or not are_held}
    for row in range(batch.num_rows):
        cells, problem, detail = {SPLIT: table.split} if table.split else {}, "", ""
        for column, values in texts.items():
            cell = _cell(values[row], labels.get(column, []))
            if cell is None:
                problem, detail = "no text in a column", f"column '{column}': {str(values[row])[:80]!r}"
            cells[column] = cell or ""
        photographs: tuple[PhotographSource, ...] = ()
        if image is not None and are_held and not problem:
            part = _part_of_file(image, row, whole, table.file)
            photographs = (part,) if part else tuple(_photographs(image[row], table.file, spool))
        yield CatalogueRow("", cells, problem, detail, photographs)


def _cell(value: Any, labels: Sequence[str]) -> str | None:
    """A value's text; None where it is none."""
    if value is None:
        return ""
    if labels and isinstance(value, int) and 0 <= value < len(labels):
        return labels[value]
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return json.dumps(value)
    if isinstance(value, dict | list | bytes):
        return None
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _part_of_file(image: Any, row: int, whole: Any, file: Path) -> FilePart | None:
    """Where a photograph's bytes lie in the file as they are; None where they are packed, missing, or several in a list."""
    import numpy as np  # not at the top: the command line loads this file

    array, name = image, ""
    if whole is not None and str(image.type).startswith("struct") and image.offset == 0 and image[row].is_valid:
        array, value = image.field("bytes"), dict(image[row])
        name = str((value["path"].as_py() if "path" in value else "") or "")
    if whole is None or str(array.type) not in ("binary", "large_binary") or not array[row].is_valid:
        return None
    kind = np.int32 if str(array.type) == "binary" else np.int64
    _, bounds, data = array.buffers()
    first, last = np.frombuffer(bounds, kind)[array.offset + row : array.offset + row + 2].tolist()
    if not whole.address <= data.address < whole.address + whole.size:
        return None
    return FilePart(file.absolute(), data.address - whole.address + first, last - first, name or f"{file.name}, row {row}")


def _photographs(value: Any, file: Path, spool: Spool) -> Iterator[PhotographSource]:
    """The photographs of a cell: bytes, a struct of bytes and a path as Hugging Face has it, or a list of either."""
    if not value.is_valid:
        return
    if hasattr(value, "values") and not hasattr(value, "keys"):
        for part in value.values:
            yield from _photographs(part, file, spool)
        return
    name = ""
    if hasattr(value, "keys"):
        name = str((value["path"].as_py() if "path" in dict(value) else "") or "")
        value = value["bytes"]
        if not value.is_valid:
            return
    buffer = value.as_buffer()
    yield spool.add(buffer.to_pybytes(), name or f"{file.name}, {buffer.size:,} bytes")


def _labels(schema: Any) -> dict[str, list[str]]:
    """Names of the classes of columns that hold numbers of classes, as Hugging Face describes them."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: feature["names"] for name, feature in features.items()
                if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}
