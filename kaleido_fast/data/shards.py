"""Reading shards: a tar of photographs and one memory-mapped table each, so that opening costs nothing (DESIGN).

    <split>-000000.tar              WebDataset members <key>.jpg and <key>.json
    <split>-000000.idx              where they lie, as text
    <split>-000000.table.npy        one row a sample (`table_dtype`)
    <split>-000000.alignment.NAME.npy   (n, W) int64, one mask a token
    <split>.products.npy            one row a product, by id as UTF-8 bytes (`product_dtype`)
    <split>.by_subcategory.npy      product ranks by (sub-category, rank)
"""

import json
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from kaleido_fast.data.manifest import VOCABULARY, Manifest

SPLITS = ("train", "validation", "test")


class BrokenSample(ValueError):
    """A photograph whose bytes are not those that `prepare` checked."""


def table_dtype(token_width: int) -> np.dtype:
    """A sample's row; `product` is its product's rank in the split, `tokens` are without special ones."""
    return np.dtype([
        ("offset", "<i8"), ("length", "<i4"), ("crc", "<u4"), ("key", "<u8"), ("product", "<i8"), ("photo", "<i4"),
        ("num_tokens", "<i4"), ("tokens", "<i4", (token_width,)), ("category", "<i4"), ("subcategory", "<i4"),
        ("left", "<i4"), ("top", "<i4"), ("side", "<i4"), ("fill", "u1", (3,)),
    ])


def product_dtype(id_bytes: int) -> np.dtype:
    """A product's row; `first_sample` is the number of its lowest photograph in the split."""
    return np.dtype([
        ("id", f"S{id_bytes}"), ("first_sample", "<i8"), ("num_samples", "<i4"), ("category", "<i4"),
        ("subcategory", "<i4"),
    ])


class Split:
    """One split of a folder of shards; samples are numbered 0..num_samples - 1 through its shards."""

    def __init__(self, folder: Path, name: str, manifest: Manifest) -> None:
        self.folder, self.name, self.manifest = folder, name, manifest
        entry = manifest.splits[name]
        self.num_samples, self.num_products = sum(entry.samples), entry.products
        self._shards = entry.shards
        self._starts = np.concatenate([[0], np.cumsum(entry.samples, dtype=np.int64)]).astype(np.int64)
        self._tables = [self._map(f"{shard}.table.npy") for shard in entry.shards]
        self._alignments: dict[str, list[np.ndarray]] = {}
        self._files: dict[int, int] = {}
        self.products = self._map(f"{name}.products.npy")
        self._by_subcategory = self._map(f"{name}.by_subcategory.npy")
        self._subcategory_starts = np.searchsorted(
            self.products["subcategory"][self._by_subcategory], np.arange(len(manifest.subcategories) + 1))

    @classmethod
    def open(cls, folder: str | Path, name: str) -> "Split":
        """Open split `name` ("train", "validation", "test").

        Raises:
            ValueError: no shards there, no such split, or an empty one.
        """
        folder = Path(folder)
        if not str(folder) or str(folder) == ".":
            raise ValueError("data.shards: not given; name the folder that 'kaleido-fast prepare' wrote")
        manifest = Manifest.read(folder)
        if name not in manifest.splits or not sum(manifest.splits[name].samples):
            raise ValueError(f"{folder}: split '{name}' has no samples; it has "
                             f"{ {key: sum(entry.samples) for key, entry in manifest.splits.items()} }")
        return cls(folder, name, manifest)

    @property
    def vocabulary_file(self) -> Path:
        return self.folder / VOCABULARY

    def rows(self, samples: np.ndarray) -> np.ndarray:
        """Structured copy of the table rows of `samples` (n,) int64."""
        return self._gather(self._tables, samples)

    def alignment(self, samples: np.ndarray, name: str) -> np.ndarray:
        """(n, W) int64 masks of the alignment files called `name`.

        Raises:
            ValueError: the shards have no such alignment.
        """
        if name not in self.manifest.alignments:
            known = ", ".join(self.manifest.alignments) or "none"
            raise ValueError(f"data.alignment={name}: {self.folder} has no such alignment, it has: {known}")
        if name not in self._alignments:
            self._alignments[name] = [self._map(f"{shard}.alignment.{name}.npy") for shard in self._shards]
        return self._gather(self._alignments[name], samples)

    def products_of_subcategory(self, subcategory: int) -> np.ndarray:
        """Ranks of a sub-category's products, ascending (so by id)."""
        return self._by_subcategory[self._subcategory_starts[subcategory] : self._subcategory_starts[subcategory + 1]]

    def read(self, sample: int) -> bytes:
        """The stored JPEG of a sample.

        Raises:
            BrokenSample: its bytes are not those that were written.
        """
        shard, row = self._locate(sample)
        data = self._pread(shard, int(row["offset"]), int(row["length"]))
        if zlib.crc32(data) != row["crc"]:
            raise BrokenSample(f"{self._shards[shard]}.tar, sample {sample}: {len(data)} of {row['length']} bytes at "
                               f"{row['offset']} do not match their CRC32")
        return data

    def record(self, sample: int) -> dict[str, Any]:
        """The sample's JSON member: id, text, category, subcategory, photo."""
        shard, row = self._locate(sample)
        start = int(row["offset"]) + -(-int(row["length"]) // 512) * 512  # the member behind the photograph
        size = int(self._pread(shard, start + 124, 11), 8)
        return json.loads(self._pread(shard, start + 512, size))

    def _locate(self, sample: int) -> tuple[int, np.void]:
        shard = int(np.searchsorted(self._starts, sample, side="right")) - 1
        return shard, self._tables[shard][sample - self._starts[shard]]

    def _gather(self, parts: list[np.ndarray], samples: np.ndarray) -> np.ndarray:
        out = np.empty((len(samples), *parts[0].shape[1:]), parts[0].dtype)
        shards = np.searchsorted(self._starts, samples, side="right") - 1
        for shard in np.unique(shards):
            here = shards == shard
            out[here] = parts[shard][samples[here] - self._starts[shard]]
        return out

    def _pread(self, shard: int, offset: int, length: int) -> bytes:
        if shard not in self._files:
            self._files[shard] = os.open(self.folder / f"{self._shards[shard]}.tar", os.O_RDONLY)
        return os.pread(self._files[shard], length, offset)

    def _map(self, name: str) -> np.ndarray:
        try:
            return np.load(self.folder / name, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise ValueError(f"{self.folder / name}: cannot be read ({error}); run prepare again") from None
