"""Reading shards: a tar of photographs and one memory-mapped table each, so that opening costs nothing (DESIGN).

    <split>-000000.tar              WebDataset members <key>.jpg and <key>.json
    <split>-000000.idx              where they lie, as text
    <split>-000000.table.npy        one row a sample (`table_dtype`)
    <split>-000000.alignment.NAME.npy   (n, W) int64, one mask a token
    <split>-000000.fields.npy       (n, fields, 2) int16, where each field lies among the tokens; of texts with fields alone
    <split>.products.npy            one row a product, by id as UTF-8 bytes (`product_dtype`)
    <split>.by_subcategory.npy      product ranks by (sub-category, rank)

Shards made of the authors' feature files have no photographs; instead of the tar and its index:

    <split>-000000.features         rows of the patch encoder (feature_store.py)
    <split>-000000.locations.npy    (n, K, 5) int32, the samples' own
    <split>-000000.plan.npy         what was masked, turned, moved, greyed (authors/plan_file.py); pre-training files alone
    <split>-000000.jsonl            a record a line; the table's offset, length and CRC32 are the record's
"""

import hashlib
import json
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from kaleido_fast.data.shards.manifest import VOCABULARY, Manifest
from kaleido_fast.data.shards.tar import next_offset, read_header
from kaleido_fast.options import TEXT_FIELDS, OptionError

SPLITS = ("train", "validation", "test")
MOST_PIXELS = 1 << 18  # of a square's side and place: four times what a JPEG can have
MOST_BYTES = 1 << 28  # of a stored photograph or record
REPAIR = "see 'kaleido-fast data check', then run prepare again"


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


def product_dtype_like(table: np.ndarray) -> np.dtype:
    """What `table` should be as a table of products, with ids as long as its own."""
    return product_dtype(table.dtype["id"].itemsize if "id" in (table.dtype.names or ()) else 1)


def row_bounds(manifest: Manifest, split: str) -> dict[str, tuple[int, int]]:
    """The least and the most that a table row of `split` may hold, by column."""
    place = (-MOST_PIXELS, MOST_PIXELS) if manifest.features is None else (0, 0)  # of the square
    return {
        "offset": (0, 1 << 62), "length": (1, MOST_BYTES), "product": (0, manifest.splits[split].products - 1),
        "photo": (0, (1 << 31) - 1), "num_tokens": (0, manifest.token_width),
        "category": (0, len(manifest.categories) - 1), "subcategory": (0, len(manifest.subcategories) - 1),
        "side": (int(manifest.features is None), place[1]), "left": place, "top": place,
    }


def sample_key(product_id: str, photo: int) -> int:
    """SPEC 1: the first 8 bytes, little-endian, of SHA-256 of "<product id>/<photo number from 0>"."""
    return int.from_bytes(hashlib.sha256(f"{product_id}/{photo}".encode()).digest()[:8], "little")


class Split:
    """One split of a folder of shards; samples are numbered 0..num_samples - 1 through its shards."""

    def __init__(self, folder: Path, name: str, manifest: Manifest) -> None:
        self.folder, self.name, self.manifest = folder, name, manifest
        entry = manifest.splits[name]
        self.num_samples, self.num_products = sum(entry.samples), entry.products
        self.shards = entry.shards
        self.starts = np.concatenate([[0], np.cumsum(entry.samples, dtype=np.int64)]).astype(np.int64)
        dtype = table_dtype(manifest.token_width)
        self._tables = [self.open_table(f"{shard}.table.npy", dtype, samples)
                        for shard, samples in zip(entry.shards, entry.samples, strict=True)]
        self._alignments: dict[str, list[np.ndarray]] = {}
        self._fields: list[np.ndarray] = []
        self._files: dict[int, int] = {}
        self.products = self.open_table(f"{name}.products.npy", None, entry.products)
        self._by_subcategory = self.open_table(f"{name}.by_subcategory.npy", np.dtype(np.int64), entry.products)
        self._check_products()
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
                             f"{ {key: sum(entry.samples) for key, entry in manifest.splits.items()} }; prepare more "
                             "products, or name their splits in a column")
        return cls(folder, name, manifest)

    @property
    def vocabulary_file(self) -> Path:
        return self.folder / VOCABULARY

    def rows(self, samples: np.ndarray) -> np.ndarray:
        """Structured copy of the table rows of `samples` (n,) int64."""
        return self.gather(self._tables, samples)

    def alignment(self, samples: np.ndarray, name: str) -> np.ndarray:
        """(n, W) int64 masks of the alignment files called `name`.

        Raises:
            ValueError: the shards have no such alignment.
        """
        self.require_alignment(name)
        if name not in self._alignments:
            shape = (self.manifest.token_width,)
            self._alignments[name] = [
                self.open_table(f"{shard}.alignment.{name}.npy", np.dtype(np.int64), samples, shape)
                for shard, samples in zip(self.shards, self.manifest.splits[self.name].samples, strict=True)]
        return self.gather(self._alignments[name], samples)

    def fields(self, samples: np.ndarray) -> np.ndarray:
        """(n, fields, 2) where the fields of the texts of `samples` (n,) lie among their tokens, half-open (fields.py).

        Raises:
            ValueError: the shards' texts have no fields.
        """
        names = self.manifest.fields
        if not names:
            raise OptionError(f"{self.folder}: the texts of these shards have no fields; run prepare with ", TEXT_FIELDS)
        if not self._fields:
            self._fields = [self.open_table(f"{shard}.fields.npy", np.dtype(np.int16), samples, (len(names), 2))
                            for shard, samples in zip(self.shards, self.manifest.splits[self.name].samples, strict=True)]
        return self.gather(self._fields, samples)

    def require_alignment(self, name: str) -> None:
        """Refuse (ValueError) an alignment that the shards do not have; "none" is none."""
        if name != "none" and name not in self.manifest.alignments:
            known = ", ".join(self.manifest.alignments) or "none"
            raise ValueError(f"data.alignment={name}: {self.folder} has no such alignment, it has: {known}")

    def plausible(self, rows: np.ndarray) -> np.ndarray:
        """(n,) bool: table rows whose every number can be used without harm; the bytes are not looked at."""
        fits = np.ones(len(rows), bool)
        fits &= ((rows["tokens"] >= 0) & (rows["tokens"] < self.manifest.vocabulary.size)).all(axis=1)
        for column, (least, most) in row_bounds(self.manifest, self.name).items():
            fits &= (rows[column] >= least) & (rows[column] <= most)
        return fits

    def products_of_subcategory(self, subcategory: int) -> np.ndarray:
        """Ranks of a sub-category's products, ascending (so by id)."""
        return self._by_subcategory[self._subcategory_starts[subcategory] : self._subcategory_starts[subcategory + 1]]

    def read(self, sample: int) -> bytes:
        """The stored JPEG of a sample.

        Raises:
            BrokenSample: its bytes are not those that were written.
            ValueError: the shards have no photographs.
        """
        self.manifest.require_photographs(self.folder, f"reading sample {sample}'s JPEG")
        return self._read_whole(sample)

    def record(self, sample: int) -> dict[str, Any]:
        """The sample's JSON member: id, text, category, subcategory, photo; `fields` where the shards have some.

        Raises:
            BrokenSample: there is none behind the photograph.
        """
        if self.manifest.features is not None:
            return json.loads(self._read_whole(sample))
        shard, row = self.locate(sample)
        offset = next_offset(int(row["offset"]), int(row["length"]))  # of the member behind the photograph
        try:
            size = read_header(self._descriptor(shard), offset).size
            return json.loads(self._pread(shard, offset, min(size, MOST_BYTES)))
        except (OSError, ValueError):
            raise BrokenSample(f"{self.shards[shard]}.tar, sample {sample}: no record behind the photograph at "
                               f"{row['offset']}; {REPAIR}") from None

    def _read_whole(self, sample: int) -> bytes:
        """The bytes that the sample's row names, compared with its CRC32."""
        shard, row = self.locate(sample)
        data = self._pread(shard, int(row["offset"]), int(row["length"]))
        if zlib.crc32(data) != row["crc"]:
            raise BrokenSample(f"{self.shards[shard]}{self._payload}, sample {sample}: {len(data)} of {row['length']} bytes at "
                               f"{row['offset']} do not match their CRC32")
        return data

    @property
    def _payload(self) -> str:
        """Ending of the file that the tables' offsets point into."""
        return ".tar" if self.manifest.features is None else ".jsonl"

    def locate(self, sample: int) -> tuple[int, np.void]:
        """Number of a sample's shard, and its row in the table."""
        shard = int(np.searchsorted(self.starts, sample, side="right")) - 1
        return shard, self._tables[shard][sample - self.starts[shard]]

    def gather(self, parts: list[np.ndarray], samples: np.ndarray) -> np.ndarray:
        """(n, ...) rows of `samples` (n,) out of one array a shard."""
        out = np.empty((len(samples), *parts[0].shape[1:]), parts[0].dtype)
        shards = np.searchsorted(self.starts, samples, side="right") - 1
        for shard in np.unique(shards):
            in_shard = shards == shard
            out[in_shard] = parts[shard][samples[in_shard] - self.starts[shard]]
        return out

    def _pread(self, shard: int, offset: int, length: int) -> bytes:
        return os.pread(self._descriptor(shard), length, offset)

    def _descriptor(self, shard: int) -> int:
        """The shard's tar, or its records, opened once."""
        if shard not in self._files:
            self._files[shard] = os.open(self.folder / (self.shards[shard] + self._payload), os.O_RDONLY)
        return self._files[shard]

    def open_table(self, name: str, dtype: np.dtype | None, rows: int, shape: tuple[int, ...] = ()) -> np.ndarray:
        """A file mapped into memory; `dtype` None: a product table's, whatever the length of its ids."""
        try:
            table = np.load(self.folder / name, mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f"{self.folder / name}: cannot be read ({error}); {REPAIR}") from None
        dtype = product_dtype_like(table) if dtype is None else dtype
        if table.dtype != dtype or table.shape != (rows, *shape):
            kind = "rows of another kind" if table.dtype != dtype else f"shape {table.shape}"
            raise ValueError(f"{self.folder / name}: {kind}, expected {(rows, *shape)} by the manifest; {REPAIR}")
        return table

    def _check_products(self) -> None:
        """Numbers that the tables of products use as indices lie within what they index."""
        most = {"first_sample": self.num_samples, "category": len(self.manifest.categories),
                "subcategory": len(self.manifest.subcategories)}
        odd = [(self.products[column] < 0) | (self.products[column] >= size) for column, size in most.items()]
        odd.append((self._by_subcategory < 0) | (self._by_subcategory >= self.num_products))
        if np.any(odd):
            raise ValueError(f"{self.folder}: the product table of split '{self.name}' points outside the split; {REPAIR}")
