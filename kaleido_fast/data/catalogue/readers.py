"""The readers of catalogues by name, as `kaleido-fast prepare` takes them.

Another format is a file in formats/, with a class as `Catalogue` says (product.py), and its row here. A package that only one
format needs is imported where that format is read: the command line loads this table to know the flags.
"""

from typing import Any

from kaleido_fast.data.catalogue.formats.csv_catalogue import CsvCatalogue
from kaleido_fast.data.catalogue.formats.jsonl_catalogue import JsonlCatalogue

READERS: dict[str, type[Any]] = {
    "csv": CsvCatalogue,
    "jsonl": JsonlCatalogue,
}
