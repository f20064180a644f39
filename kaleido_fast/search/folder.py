"""The folder of an index (SPEC 12), readable with NumPy and JSON alone:

    index.json        counts, the model's fingerprint, names of the categories, where the photographs lie
    photographs.npy   (P, E) fp16 of length 1, those of a product behind each other, products in the order of the lines
    texts.npy         (n, E) fp16 of length 1; zeros where a product has no text
    products.jsonl    a product a line: id, text, category, subcategory, source (a number), photographs (their places in it)
    products.npy      (n,) for each product: where its line begins, its id as UTF-8 bytes, its first row in photographs.npy and
                      how many it has, the numbers of its category and sub-category in index.json
    model/            the model that made it, as `kaleido-fast export` writes one: it reads the queries

Files that replace others are written beside them; COMMIT says that all are whole, and from then on whoever opens the folder
puts them into their places.
"""

import json
import mmap
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kaleido_fast.files import read_json
from kaleido_fast.folder_lock import in_turn
from kaleido_fast.options import INDEX, Option, OptionError

FORMAT = 1
HEADER, PHOTOGRAPHS, TEXTS, LINES, TABLE = "index.json", "photographs.npy", "texts.npy", "products.jsonl", "products.npy"
MODEL = "model"
ARRAYS = (PHOTOGRAPHS, TEXTS, LINES, TABLE)
COMMIT = "index.json.commit"  # the next header: the files beside are whole
NEXT = ".next"  # behind the name of a file that will replace another
AGAIN = ("index the catalogue again into another ", Option("out"))
DIGITS = 16  # of a fingerprint in messages


@dataclass(frozen=True, slots=True)
class Source:
    """A place where photographs of products lie."""

    kind: str  # "shards" or "images"
    folder: str  # absolute
    fingerprint: str = ""  # of shards: the manifest's

    @property
    def place(self) -> Path:
        return Path(self.folder)


@dataclass(frozen=True, slots=True)
class Header:
    """What index.json holds."""

    model: str  # fingerprint
    size: int  # E, numbers of an embedding
    products: int = 0
    photographs: int = 0
    texts: int = 0  # products that have one
    categories: tuple[str, ...] = ()
    subcategories: tuple[str, ...] = ()
    sources: tuple[Source, ...] = ()
    state: str = ""  # another one after each change
    format: int = FORMAT

    def text(self) -> str:
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"


@dataclass(frozen=True, slots=True)
class Entry:
    """A product as its line says."""

    id: str
    text: str
    category: str
    subcategory: str
    source: int
    photographs: tuple[str, ...]  # places in the source: "SPLIT/SAMPLE" of shards, a file's name of images

    def line(self) -> bytes:
        return (json.dumps(asdict(self), ensure_ascii=False) + "\n").encode()


class Contents(NamedTuple):
    """The opened files of an index."""

    header: Header
    photographs: np.ndarray  # (P, E) fp16
    texts: np.ndarray  # (n, E) fp16
    table: np.ndarray  # (n,) `table_dtype`
    lines: mmap.mmap | bytes  # of products.jsonl


def table_dtype(id_bytes: int) -> np.dtype:
    """A product's row in products.npy."""
    return np.dtype([("line", "<i8"), ("id", f"S{id_bytes}"), ("first_photograph", "<i8"), ("num_photographs", "<i4"),
                     ("category", "<i4"), ("subcategory", "<i4")])


def _table_dtype_like(table: np.ndarray) -> np.dtype:
    """What `table` should be, with ids as long as its own."""
    return table_dtype(table.dtype["id"].itemsize if "id" in (table.dtype.names or ()) else 1)


def finish_change(folder: Path) -> None:
    """Put whole files that wait beside theirs into their places; whoever comes second goes on where the first was stopped."""
    if not (folder / COMMIT).exists():
        return
    with in_turn(folder):
        if (folder / COMMIT).exists():  # else another process was faster, and what lies beside may be half of the next change
            for name in ARRAYS:
                _move(folder / (name + NEXT), folder / name)
            os.replace(folder / COMMIT, folder / HEADER)


def read_header(folder: Path) -> Header:
    """What an index says of itself.

    Raises:
        ValueError: there is none, or it is damaged or of another version.
    """
    if not folder.is_dir():
        raise OptionError(f"{folder}: no such index; make one with ", INDEX)
    finish_change(folder)
    if not (folder / HEADER).exists():
        raise OptionError(f"{folder}: no {HEADER} there, so it is no index, or one that was not finished; run the same ", INDEX,
                          " again, or give the folder that it wrote")
    values = read_json(folder / HEADER, *AGAIN)
    if values.get("format") != FORMAT:
        raise OptionError(f"{folder / HEADER}: format {values.get('format')}, this version reads {FORMAT}; ", *AGAIN)
    try:
        sources = tuple(Source(**source) for source in values.pop("sources"))
        categories, subcategories = (tuple(values.pop(key)) for key in ("categories", "subcategories"))
        return Header(**values, categories=categories, subcategories=subcategories, sources=sources)
    except (TypeError, KeyError, AttributeError) as error:
        raise OptionError(f"{folder / HEADER}: other keys than expected: {error}; ", *AGAIN) from None


def read_contents(folder: Path) -> Contents:
    """The files of an index, mapped into memory: what replaces them later changes nothing here.

    Raises:
        ValueError: a file is missing, damaged, or does not go with the header.
    """
    while True:
        header = read_header(folder)
        try:
            contents = _contents(folder, header)
        except ValueError:
            if read_header(folder) == header:
                raise
            continue
        if read_header(folder) == header:  # else a change went on meanwhile
            return contents


def read_entries(contents: Contents, products: Sequence[int] | np.ndarray) -> list[Entry]:
    """The products of these numbers.

    Raises:
        ValueError: a line is damaged.
    """
    starts = contents.table["line"][np.asarray(products, np.int64)]
    return [_entry(contents.lines[start : contents.lines.find(b"\n", start)]) for start in starts.tolist()]


def _contents(folder: Path, header: Header) -> Contents:
    shapes = {PHOTOGRAPHS: (header.photographs, header.size), TEXTS: (header.products, header.size), TABLE: (header.products,)}
    arrays = {}
    for name, shape in shapes.items():
        try:
            arrays[name] = np.load(folder / name, mmap_mode="r" if shape[0] else None)
        except (OSError, ValueError, EOFError) as error:
            raise OptionError(f"{folder / name}: cannot be read ({error}); ", *AGAIN) from None
        dtype = _table_dtype_like(arrays[name]) if name == TABLE else np.dtype(np.float16)
        if arrays[name].shape != shape or arrays[name].dtype != dtype:
            raise OptionError(f"{folder / name}: {arrays[name].dtype} of shape {arrays[name].shape}, {HEADER} says "
                              f"{dtype} of {shape}; ", *AGAIN)
    _check_table(folder, header, arrays[TABLE])
    return Contents(header, arrays[PHOTOGRAPHS], arrays[TEXTS], arrays[TABLE], _mapped(folder / LINES))


def _mapped(file: Path) -> mmap.mmap | bytes:
    try:
        with file.open("rb") as stream:
            return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) if os.fstat(stream.fileno()).st_size else b""
    except OSError as error:
        raise OptionError(f"{file}: cannot be read ({error.strerror}); ", *AGAIN) from None


def _entry(line: bytes) -> Entry:
    try:
        values: dict[str, Any] = json.loads(line)
        return Entry(**values | {"photographs": tuple(values["photographs"])})
    except (ValueError, TypeError, KeyError) as error:
        raise OptionError(f"{LINES}: a damaged line ({error}); ", *AGAIN) from None


def _check_table(folder: Path, header: Header, table: np.ndarray) -> None:
    """Numbers that are used as places lie inside; each product's photographs follow those of the one before."""
    counts = table["num_photographs"].astype(np.int64)
    firsts = np.concatenate([[0], np.cumsum(counts)])
    fits = firsts[-1] == header.photographs and (counts >= 1).all() and (table["first_photograph"] == firsts[:-1]).all()
    for column, names in (("category", header.categories), ("subcategory", header.subcategories)):
        fits = fits and ((table[column] >= 0) & (table[column] < len(names))).all()
    if not fits:
        raise OptionError(f"{folder / TABLE}: numbers that do not go with {HEADER}; ", *AGAIN)


def _move(source: Path, place: Path) -> None:
    try:
        os.replace(source, place)
    except FileNotFoundError:  # moved already
        pass
