"""data check: one photograph and its row: where it lies, its bytes, its picture, its square, its record, its tokens."""

import io
import json
import os
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kaleido_fast.data.catalogue.locking import MIN_SIDE, frame_colour
from kaleido_fast.data.shards.manifest import Manifest
from kaleido_fast.data.shards.split import MOST_BYTES, product_dtype_like, row_bounds, sample_key
from kaleido_fast.data.shards.tokenizer import Tokenizer
from kaleido_fast.kernels.geometry import GRIDS, num_positions

BLOCK = tarfile.BLOCKSIZE
FILL_TOLERANCE = 4  # between the stored fill and the frame's colour under another JPEG decoder


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong; `what` says what was found and what was expected."""

    file: str
    what: str
    sample: int | None = None  # number in its split
    product: str = ""

    def describe(self) -> str:
        """A line."""
        place = [self.file]
        if self.sample is not None:
            place.append(f"sample {self.sample}")
        if self.product:
            place.append(f"product {self.product}")
        return f"{', '.join(place)}: {self.what}"


def open_array(
    folder: Path, file: str, dtype: np.dtype | None, shape: tuple[int, ...], findings: list[Finding]
) -> np.ndarray | None:
    """A file mapped into memory; None and a finding where it is not what it should be (`dtype` None: a product table)."""
    try:
        array = np.load(folder / file, mmap_mode="r")
    except FileNotFoundError:
        return None  # said once, with all other files
    except (OSError, ValueError, EOFError) as error:
        findings.append(Finding(file, f"cannot be read: {error}"))
        return None
    dtype = product_dtype_like(array) if dtype is None else dtype
    if array.dtype != dtype or array.shape != shape:
        kind = "rows of another kind" if array.dtype != dtype else f"shape {array.shape}"
        findings.append(Finding(file, f"{kind}, expected {shape} by the manifest"))
        return None
    return array


@dataclass(frozen=True, slots=True)
class ShardFiles:
    """One shard, opened."""

    name: str
    tar: int  # file descriptor
    table: np.ndarray
    index: list[str] | None  # lines behind the first
    masks: dict[str, np.ndarray]  # alignments by name


class RowCheck:
    """Checks rows of one split.

    Args:
        products: its table of products, None where it cannot be read.
        tokenizer: None where the vocabulary is not the manifest's.
    """

    def __init__(self, manifest: Manifest, split: str, products: np.ndarray | None, tokenizer: Tokenizer | None) -> None:
        self._manifest, self._products, self._tokenizer = manifest, products, tokenizer
        self._bounds = row_bounds(manifest, split)

    def findings(self, shard: ShardFiles, place: int, sample: int) -> Iterator[Finding]:
        """What is wrong with row `place` of `shard`, the split's sample `sample`."""
        row, product = shard.table[place], ""
        if self._products is not None and 0 <= row["product"] < len(self._products):
            product = self._products["id"][row["product"]].decode("utf-8", "backslashreplace")
        for ending, what in self._problems(shard, place, sample, row):
            yield Finding(shard.name + ending, what, sample, product)

    def _problems(self, shard: ShardFiles, place: int, sample: int, row: np.void) -> Iterator[tuple[str, str]]:
        """(ending of the file, what) pairs."""
        odd = self.odd_columns(row)
        if odd:
            yield from ((".table.npy", what) for what in odd)
            return
        key = f"{shard.name.rpartition('-')[2]}-{place:06d}"
        offset, length = int(row["offset"]), int(row["length"])
        behind = offset + -(-length // BLOCK) * BLOCK + BLOCK
        record, size = self._record(shard.tar, behind, key)
        if shard.index is not None:
            expected = f"jpg {offset} {length} {key}.jpg json {behind} {size} {key}.json"
            if shard.index[place] != expected:
                yield ".idx", f"line {place + 2} is '{shard.index[place][:120]}', expected '{expected}'"
        yield from ((".tar", what) for what in member_problems(shard.tar, offset, f"{key}.jpg", length))
        data = os.pread(shard.tar, length, offset)
        if zlib.crc32(data) != row["crc"]:
            yield ".tar", (f"CRC32 {zlib.crc32(data):#010x} of {len(data):,} bytes at byte {offset:,}, expected "
                           f"{row['crc']:#010x} of {length:,}")
        else:
            yield from ((".tar", what) for what in picture_problems(data, row))
        yield from ((".table.npy", what) for what in self._product_problems(row, sample))
        if isinstance(record, str):
            yield ".tar", record
        else:
            yield from ((".table.npy", what) for what in self.record_problems(row, record))
        for name, masks in shard.masks.items():
            yield from ((f".alignment.{name}.npy", what) for what in mask_problems(masks[place], int(row["num_tokens"])))

    def odd_columns(self, row: np.void) -> list[str]:
        return [f"{column} {row[column]}, expected {least}..{most}"
                for column, (least, most) in self._bounds.items() if not least <= row[column] <= most]

    def _record(self, tar: int, offset: int, key: str) -> tuple[dict[str, Any] | str, int]:
        """The record at `offset`, or what is wrong with it, and its length."""
        member = read_member(tar, offset)
        if isinstance(member, str) or member.name != f"{key}.json":
            found = member if isinstance(member, str) else f"member '{member.name}'"
            return f"{found} at byte {offset - BLOCK:,}, expected '{key}.json'", 0
        return parse_record(os.pread(tar, min(member.size, MOST_BYTES), offset), offset), member.size

    def _product_problems(self, row: np.void, sample: int) -> Iterator[str]:
        if self._products is None:
            return
        product = self._products[row["product"]]
        first, last = int(product["first_sample"]), int(product["first_sample"]) + int(product["num_samples"]) - 1
        if not first <= sample <= last:
            yield f"product {row['product']}, which has samples {first}..{last}"
        for column in ("category", "subcategory"):
            if product[column] != row[column]:
                yield f"{column} {row[column]}, its product's is {product[column]}"

    def record_problems(self, row: np.void, record: dict[str, Any]) -> Iterator[str]:
        manifest = self._manifest
        found = {"photo": row["photo"], "category": manifest.categories[row["category"]],
                 "subcategory": manifest.subcategories[row["subcategory"]]}
        if self._products is not None:
            found["id"] = self._products["id"][row["product"]].decode("utf-8", "backslashreplace")
        for name, value in found.items():
            if record[name] != value:
                yield f"{name} {value!s}, the record says {record[name]!s}"
        key = sample_key(str(record["id"]), record["photo"])
        if row["key"] != key:
            yield f"key {row['key']:#018x}, expected {key:#018x} of {record['id']}/{record['photo']}"
        yield from self.token_problems(row, str(record["text"]))

    def token_problems(self, row: np.void, text: str) -> Iterator[str]:
        ids = row["tokens"]
        odd = self.odd_ids(ids)
        if odd:
            yield odd
        elif self._tokenizer is not None:
            expected = self._tokenizer.encode(text)[: len(ids)]
            if ids[: row["num_tokens"]].tolist() != expected:
                yield (f"{row['num_tokens']} tokens {ids[: min(row['num_tokens'], 6)].tolist()}…, its text has {len(expected)} "
                       f"{expected[:6]}…")
        yield from ids_behind(row)

    def odd_ids(self, ids: np.ndarray) -> str:
        """What is wrong with ids that are none of the vocabulary's; "" where nothing is."""
        odd = ids[(ids < 0) | (ids >= self._manifest.vocabulary.size)]
        return f"token id {odd[0]}, expected 0..{self._manifest.vocabulary.size - 1}" if len(odd) else ""


def ids_behind(row: np.void) -> Iterator[str]:
    if row["tokens"][row["num_tokens"] :].any():
        yield f"token ids behind the last of {row['num_tokens']}"


def parse_record(data: bytes, offset: int) -> dict[str, Any] | str:
    """A record's fields, or what is wrong with it."""
    try:
        record = json.loads(data)
        missing = {"id", "text", "category", "subcategory", "photo"} - set(record)
    except (ValueError, TypeError) as error:
        return f"record at byte {offset:,} is not JSON: {error}"
    return f"record at byte {offset:,} lacks {', '.join(sorted(missing))}" if missing else record


def read_member(tar: int, offset: int) -> tarfile.TarInfo | str:
    """The header of the member whose bytes begin at `offset`, or what is there instead."""
    if offset < BLOCK:
        return "no member"
    header = os.pread(tar, BLOCK, offset - BLOCK)
    try:
        return tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        return f"no member ({error})"


def member_problems(tar: int, offset: int, name: str, length: int) -> Iterator[str]:
    """The member at `offset` has this name and length."""
    member = read_member(tar, offset)
    expected = f"expected '{name}' of {length:,} bytes"
    if isinstance(member, str):
        yield f"{member} at byte {offset - BLOCK:,}, {expected}"
    elif (member.name, member.size) != (name, length):
        yield f"member '{member.name}' of {member.size:,} bytes at byte {offset - BLOCK:,}, {expected}"


def picture_problems(data: bytes, row: np.void) -> Iterator[str]:
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


def mask_problems(masks: np.ndarray, num_tokens: int) -> Iterator[str]:
    """Alignment only of tokens that are there, with positions that are there."""
    if masks[num_tokens:].any():
        yield f"masks behind the last of {num_tokens} tokens"
    positions = num_positions(GRIDS)
    if (masks.view(np.uint64) >> np.uint64(positions)).any():
        yield f"a mask with bits from {positions} on; there are {positions} positions"
