"""Writing shards: a tar, its index and its tables, whose bytes depend on the samples alone."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kaleido_fast.data.shards.split import product_dtype, table_dtype
from kaleido_fast.data.shards.tar import END, header, whole_blocks


@dataclass(frozen=True, slots=True)
class Sample:
    """One row to write; `row` has every column of the table but offset, length and alignment."""

    member: str  # its name in the tar, without ending
    data: bytes
    record: dict[str, Any]
    row: dict[str, Any]
    tokens: list[int]
    alignment: np.ndarray | None  # (num_tokens,) int64
    fields: np.ndarray | None = None  # (fields, 2) int16, where each lies among the tokens (fields.py)


class ShardWriter:
    """One shard: a tar, its index, its table and, where there are any, its alignments."""

    def __init__(self, folder: Path, name: str, token_width: int, alignment: str) -> None:
        self._folder, self._name, self._width, self._alignment = folder, name, token_width, alignment
        self._tar = (folder / f"{name}.tar").open("wb")
        self._index: list[str] = []
        self._rows: list[tuple[int, Sample]] = []

    def add(self, sample: Sample) -> None:
        offset = self._member(f"{sample.member}.jpg", sample.data)
        record = json.dumps(sample.record, sort_keys=True, ensure_ascii=False).encode()
        behind = self._member(f"{sample.member}.json", record)
        self._index.append(f"jpg {offset} {len(sample.data)} {sample.member}.jpg "
                           f"json {behind} {len(record)} {sample.member}.json")
        self._rows.append((offset, sample))

    def close(self) -> int:
        """Write what stands beside the tar; returns the number of samples."""
        self._tar.write(END)
        self._tar.close()
        index = "\n".join([f"v1.2 {len(self._index)}", *self._index]) + "\n"
        (self._folder / f"{self._name}.idx").write_text(index, encoding="utf-8")
        table = np.zeros(len(self._rows), table_dtype(self._width))
        masks = np.zeros((len(self._rows), self._width), np.int64)
        for place, (offset, sample) in enumerate(self._rows):
            self._fill(table, place, offset, sample)
            if sample.alignment is not None:
                kept = sample.alignment[: self._width]
                masks[place, : len(kept)] = kept
        np.save(self._folder / f"{self._name}.table.npy", table)
        ranges = [sample.fields for _, sample in self._rows if sample.fields is not None]
        if ranges:
            np.save(self._folder / f"{self._name}.fields.npy", np.stack(ranges))
        if self._alignment:
            np.save(self._folder / f"{self._name}.alignment.{self._alignment}.npy", masks)
        return len(self._rows)

    def _fill(self, table: np.ndarray, place: int, offset: int, sample: Sample) -> None:
        tokens = sample.tokens[: self._width]
        table["offset"][place], table["length"][place] = offset, len(sample.data)
        table["num_tokens"][place] = len(tokens)
        table["tokens"][place, : len(tokens)] = tokens
        for column, value in sample.row.items():
            table[column][place] = value

    def _member(self, name: str, data: bytes) -> int:
        """Append one file; returns where its bytes begin."""
        self._tar.write(header(name, len(data)))
        offset = self._tar.tell()
        self._tar.write(data.ljust(whole_blocks(len(data)), b"\0"))
        return offset


def write_products(
    folder: Path, split: str, shards: Sequence[str], written: Sequence[tuple[bytes, int, int, int, int]]
) -> None:
    """A split's product tables in the order of ids as UTF-8 bytes, and that rank in every sample's row.

    Args:
        written: rows of the product table as they came; `product` in the shards' tables is a row's place here.
    """
    order = sorted(range(len(written)), key=lambda place: written[place][0])
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    table = np.array([written[place] for place in order],
                     product_dtype(max((len(row[0]) for row in written), default=1)))
    np.save(folder / f"{split}.products.npy", table)
    np.save(folder / f"{split}.by_subcategory.npy", np.argsort(table["subcategory"], kind="stable"))
    for shard in shards:
        rows = np.load(folder / f"{shard}.table.npy")
        rows["product"] = rank[rows["product"]]
        np.save(folder / f"{shard}.table.npy", rows)
