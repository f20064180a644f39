"""data check: one photograph and its row: where it lies, its bytes, its picture, its square, its record, its tokens."""

import io
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from kaleido_fast.data.catalogue.locking import MIN_SIDE, frame_colour
from kaleido_fast.data.check.fields import field_problems
from kaleido_fast.data.check.row import Problem, RowRules, ids_behind, parse_record
from kaleido_fast.data.shards.split import MOST_BYTES
from kaleido_fast.data.shards.tar import BLOCK, next_offset, read_header
from kaleido_fast.data.shards.tokenizer import Tokenizer
from kaleido_fast.kernels.geometry import GRIDS, num_positions

FILL_TOLERANCE = 4  # between the stored fill and the frame's colour under another JPEG decoder


@dataclass(frozen=True, slots=True)
class PhotographShard:
    """One shard, opened."""

    name: str
    tar: int  # file descriptor
    table: np.ndarray
    index: list[str] | None  # lines behind the first; None where it cannot be read
    masks: dict[str, np.ndarray]  # alignments by name
    fields: np.ndarray | None = None  # where each lies among the tokens; None without fields, or where it cannot be read

    def close(self) -> None:
        """No row is looked at any more."""
        os.close(self.tar)


def photograph_problems(
    rules: RowRules, tokenizer: Tokenizer | None, shard: PhotographShard, place: int, sample: int
) -> Iterator[Problem]:
    """What is wrong with row `place` of a shard.

    Args:
        tokenizer: None where the vocabulary is not the manifest's: tokens are not compared with the text then.
        sample: the row's number in its split.
    """
    row = shard.table[place]
    odd = rules.odd_columns(row)
    if odd:
        yield from ((".table.npy", what) for what in odd)
        return
    member = f"{shard.name.rpartition('-')[2]}-{place:06d}"
    offset, length = int(row["offset"]), int(row["length"])
    record_offset = next_offset(offset, length)
    record, size = _record(shard.tar, record_offset, f"{member}.json")
    if shard.index is not None:
        expected = f"jpg {offset} {length} {member}.jpg json {record_offset} {size} {member}.json"
        if shard.index[place] != expected:
            yield ".idx", f"line {place + 2} is '{shard.index[place][:120]}', expected '{expected}'"
    yield from ((".tar", what) for what in _member_problems(shard.tar, offset, f"{member}.jpg", length))
    yield from ((".tar", what) for what in _data_problems(os.pread(shard.tar, length, offset), row))
    yield from ((".table.npy", what) for what in _product_problems(rules.products, row, sample))
    if isinstance(record, str):
        yield ".tar", record
    else:
        yield from ((".table.npy", what) for what in rules.record_problems(row, record))
        yield from ((".table.npy", what) for what in _token_problems(rules, tokenizer, row, str(record["text"])))
        if shard.fields is not None:
            names = rules.manifest.fields
            yield from field_problems(names, tokenizer, shard.fields[place], int(row["num_tokens"]), record)
    for name, masks in shard.masks.items():
        yield from ((f".alignment.{name}.npy", what) for what in _mask_problems(masks[place], int(row["num_tokens"])))


def _record(tar: int, offset: int, name: str) -> tuple[dict[str, Any] | str, int]:
    """The record at `offset`, or what is wrong with it, and its length."""
    try:
        header = read_header(tar, offset)
    except ValueError as error:
        return f"{error} at byte {offset - BLOCK:,}, expected '{name}'", 0
    if header.name != name:
        return f"member '{header.name}' at byte {offset - BLOCK:,}, expected '{name}'", 0
    return parse_record(os.pread(tar, min(header.size, MOST_BYTES), offset), offset), header.size


def _member_problems(tar: int, offset: int, name: str, length: int) -> Iterator[str]:
    """The member at `offset` has this name and length."""
    expected = f"at byte {offset - BLOCK:,}, expected '{name}' of {length:,} bytes"
    try:
        header = read_header(tar, offset)
    except ValueError as error:
        yield f"{error} {expected}"
        return
    if (header.name, header.size) != (name, length):
        yield f"member '{header.name}' of {header.size:,} bytes {expected}"


def _data_problems(data: bytes, row: np.void) -> Iterator[str]:
    """The bytes are those that were written, and a picture."""
    if zlib.crc32(data) != row["crc"]:
        yield (f"CRC32 {zlib.crc32(data):#010x} of {len(data):,} bytes at byte {row['offset']:,}, expected {row['crc']:#010x} "
               f"of {row['length']:,}")
    else:
        yield from _picture_problems(data, row)


def _picture_problems(data: bytes, row: np.void) -> Iterator[str]:
    """The bytes decode whole, and square and fill can be this picture's."""
    try:
        image = Image.open(io.BytesIO(data), formats=["JPEG"])
        pixels = np.asarray(image.convert("RGB"))
    except Exception as error:  # Pillow on bytes that may be anything
        yield f"cannot be decoded whole: {error}"
        return
    height, width = pixels.shape[:2]
    left, top, side, longest = int(row["left"]), int(row["top"]), int(row["side"]), max(width, height)
    most = max(MIN_SIDE, longest + 2 * ((longest + 10) // 20))
    centred = 0 <= 2 * left + side + 1 and 2 * left + side <= 2 * width and 0 <= 2 * top + side + 1 \
        and 2 * top + side <= 2 * height
    if not MIN_SIDE <= side <= most or not centred:
        yield (f"square of {side} at ({left}, {top}), expected a side of {MIN_SIDE}..{most} and its centre inside "
               f"{width} x {height}")
    colour = frame_colour(pixels)
    if max(abs(int(a) - b) for a, b in zip(row["fill"], colour, strict=True)) > FILL_TOLERANCE:
        yield f"fill {tuple(row['fill'].tolist())}, the picture's frame is {colour}"


def _product_problems(products: np.ndarray | None, row: np.void, sample: int) -> Iterator[str]:
    """The row's product has this sample, and its categories."""
    if products is None:
        return
    product = products[row["product"]]
    first, last = int(product["first_sample"]), int(product["first_sample"]) + int(product["num_samples"]) - 1
    if not first <= sample <= last:
        yield f"product {row['product']}, which has samples {first}..{last}"
    for column in ("category", "subcategory"):
        if product[column] != row[column]:
            yield f"{column} {row[column]}, its product's is {product[column]}"


def _token_problems(rules: RowRules, tokenizer: Tokenizer | None, row: np.void, text: str) -> Iterator[str]:
    """The tokens are those of the text."""
    ids = row["tokens"]
    odd = rules.odd_ids(ids)
    if odd:
        yield odd
    elif tokenizer is not None:
        expected = tokenizer.encode(text)[: len(ids)]
        if ids[: row["num_tokens"]].tolist() != expected:
            yield (f"{row['num_tokens']} tokens {ids[: min(row['num_tokens'], 6)].tolist()}…, its text has {len(expected)} "
                   f"{expected[:6]}…")
    yield from ids_behind(row)


def _mask_problems(masks: np.ndarray, num_tokens: int) -> Iterator[str]:
    """Alignment only of tokens that are there, with positions that are there."""
    if masks[num_tokens:].any():
        yield f"masks behind the last of {num_tokens} tokens"
    positions = num_positions(GRIDS)
    if (masks.view(np.uint64) >> np.uint64(positions)).any():
        yield f"a mask with bits from {positions} on; there are {positions} positions"
