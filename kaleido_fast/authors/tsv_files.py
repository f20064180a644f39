"""Reading the authors' feature files: many GB, a row at a time, on all cores.

A file is cut into pieces of some MB; a process reads the lines that begin in its piece and hands back what they became, in
order, so that a row's number is known and the memory used does not grow with the file.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from kaleido_fast.authors.plan_file import plan_row
from kaleido_fast.authors.tsv_columns import LAYOUTS, TsvLayout
from kaleido_fast.authors.tsv_rows import BadRow, TsvRow, parse_row
from kaleido_fast.data.processes import spread
from kaleido_fast.data.shards.manifest import Vocabulary
from kaleido_fast.options import Option, OptionError

PIECE_BYTES = 1 << 24
BYTES_A_PROCESS = 1 << 26  # of feature files: starting a process takes longer than reading a few MB
MOST_LINE_BYTES = 1 << 27
LINES_LOOKED_AT = 20  # for the layout: the first may be broken
TEXTS = ("text_prod_id", "prod_desc", "image_prod_id", "prod_img_id", "img_category", "img_subcategory")
CLASSES = ("img_category_id", "img_subcategory_id")


@dataclass(frozen=True, slots=True)
class Piece:
    """The lines of `file` that begin at bytes start..stop - 1."""

    file: Path
    start: int
    stop: int
    layout: TsvLayout
    vocabulary: Vocabulary


@dataclass(frozen=True, slots=True)
class ReadRow:
    """What prepare keeps of a row."""

    features: np.ndarray  # (rows, F) float32
    locations: np.ndarray  # (K, 5) int32
    words: np.ndarray  # int32 tokens between [CLS] and [SEP], masked already
    plan: np.ndarray | None  # () `plan_dtype`
    photograph: str
    match: int  # ITM label; 1 where the file has none
    texts: dict[str, str]  # of TEXTS, what the layout has
    classes: dict[str, int]  # of CLASSES


@dataclass(frozen=True, slots=True)
class Refused:
    """A row that cannot be used."""

    reason: str
    what: str


def find_layout(files: Sequence[Path]) -> TsvLayout:
    """The one layout of all files.

    Raises:
        ValueError: a file cannot be read, has no rows or another number of columns; two files have different layouts.
    """
    layouts = {file: _layout(file) for file in files}
    names = {layout.name for layout in layouts.values()}
    if len(names) > 1:
        listed = ", ".join(f"{file} {layout.name}" for file, layout in layouts.items())
        raise OptionError(Option("catalog"), f": files of different layouts ({listed}); prepare each layout on its own")
    return layouts[files[0]]


def read_rows(
    files: Sequence[Path], layout: TsvLayout, vocabulary: Vocabulary, processes: int
) -> Iterator[tuple[Path, int, list[tuple[int, ReadRow | Refused]]]]:
    """File, bytes read and the rows with their line numbers from 1, piece by piece, in the files' order."""
    pieces = [Piece(file, start, min(start + PIECE_BYTES, size), layout, vocabulary)
              for file in files for size in [file.stat().st_size] for start in range(0, size, PIECE_BYTES)]
    processes = min(processes, 1 + sum(piece.stop - piece.start for piece in pieces) // BYTES_A_PROCESS)
    file, first = None, 1
    for piece, (lines, rows) in zip(pieces, spread(read_piece, pieces, processes), strict=True):
        file, first = piece.file, first if piece.file == file else 1
        yield file, piece.stop - piece.start, [(first + place, row) for place, row in rows]
        first += lines


def read_piece(piece: Piece) -> tuple[int, list[tuple[int, ReadRow | Refused]]]:
    """In a worker process: how many lines begin in the piece, and what each became; empty lines are passed over."""
    rows: list[tuple[int, ReadRow | Refused]] = []
    place = -1
    for place, line in enumerate(_lines(piece.file, piece.start, piece.stop)):
        if line.strip():
            rows.append((place, _read(line, piece)))
    return place + 1, rows


def _lines(file: Path, start: int, stop: int) -> Iterator[bytes]:
    with file.open("rb") as stream:
        if start:
            stream.seek(start - 1)
            _line(stream, file)  # the rest of a line that begins in the piece before
        while stream.tell() < stop and (line := _line(stream, file)):
            yield line.rstrip(b"\r\n")


def _line(stream: BinaryIO, file: Path) -> bytes:
    start = stream.tell()
    line = stream.readline(MOST_LINE_BYTES)
    if len(line) == MOST_LINE_BYTES and not line.endswith(b"\n"):
        raise ValueError(f"{file}: a line of more than {MOST_LINE_BYTES:,} bytes at byte {start:,}; expected the authors' "
                         "feature files, one row a line")
    return line


def _read(line: bytes, piece: Piece) -> ReadRow | Refused:
    try:
        row = parse_row(line, piece.layout, piece.vocabulary)
    except BadRow as error:
        return Refused(error.reason, str(error))
    return _read_row(row, piece.layout)


def _read_row(row: TsvRow, layout: TsvLayout) -> ReadRow:
    values = row.values
    return ReadRow(
        features=row.features, locations=row.locations,
        words=values["input_ids"][1 : row.length - 1].astype(np.int32),
        plan=plan_row(values) if layout.has_plan else None, photograph=row.photograph,
        match=int(values["nx_sent_labels"][0]) if "nx_sent_labels" in values else 1,
        texts={name: values[name] for name in TEXTS if name in values},
        classes={name: int(values[name][0]) for name in CLASSES if name in values})


def _layout(file: Path) -> TsvLayout:
    try:
        lines = itertools.islice(_lines(file, 0, file.stat().st_size), LINES_LOOKED_AT)
        widths = [line.count(b"\t") + 1 for line in lines]
    except OSError as error:
        raise ValueError(f"{file}: cannot be read: {error.strerror}") from None
    known = [LAYOUTS[columns] for columns in widths if columns in LAYOUTS]
    if not widths:
        raise ValueError(f"{file}: empty; expected one row a line")
    if not known:
        kinds = ", ".join(f"{columns} ({layout.name})" for columns, layout in LAYOUTS.items())
        raise ValueError(f"{file}, line 1: {widths[0]} tab-separated columns; the authors' feature files have {kinds}")
    return known[0]
