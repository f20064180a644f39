"""The readers of catalogues by name, as `kaleido-fast prepare` takes them.

Another format is a file in formats/, with a class as `Catalogue` says (product.py), and its row here. A package that only one
format needs is imported where that format is read: the command line loads this table to know the flags.
"""

from typing import Any

from kaleido_fast.data.catalogue.formats.csv_catalogue import CsvCatalogue
from kaleido_fast.data.catalogue.formats.fashion_gen_catalogue import FashionGenCatalogue
from kaleido_fast.data.catalogue.formats.folder_catalogue import FolderCatalogue
from kaleido_fast.data.catalogue.formats.huggingface_catalogue import HuggingFaceCatalogue
from kaleido_fast.data.catalogue.formats.jsonl_catalogue import JsonlCatalogue
from kaleido_fast.data.catalogue.formats.parquet_catalogue import ParquetCatalogue
from kaleido_fast.data.catalogue.formats.webdataset_catalogue import WebDatasetCatalogue

READERS: dict[str, type[Any]] = {
    "csv": CsvCatalogue,
    "jsonl": JsonlCatalogue,
    "parquet": ParquetCatalogue,
    "huggingface": HuggingFaceCatalogue,
    "fashiongen-h5": FashionGenCatalogue,
    "webdataset": WebDatasetCatalogue,
    "folder": FolderCatalogue,
}
