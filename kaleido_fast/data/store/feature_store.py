"""The feature store: what a frozen patch encoder made of every photograph, one file a shard (DESIGN 'Feature store').

    bytes 0..4095   header: JSON (`StoreHeader`), padded with spaces
    then            one block a sample: its rows, one behind the other (row_format.py)
    then            CRC32 of each block, uint32 little-endian

Rows of a block: 74 by SPEC 2 'Stored rows'; of the authors' feature files the 55 positions as they stand there, then the
clean features of the 2 greyed slots. Of a photograph that could not be read the block is zeros and its CRC32 inverted, so
that no reader takes it for features.
"""

import ctypes
import dataclasses
import hashlib
import json
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kaleido_fast.data.store.row_format import STORE_DTYPES, StoreDtype, pack_rows, row_bytes

ENDING = ".features"
FORMAT = "kaleido_fast features 1"
HEADER_BYTES = 4096
CRC_BYTES, INVERTED = 4, 0xFFFFFFFF
MOST_FEATURES, MOST_ROWS = 1 << 16, 1 << 12


@dataclass(frozen=True, slots=True)
class StoreHeader:
    """What a store holds; `recipe` names all that its numbers depend on besides the photographs."""

    dtype: StoreDtype
    samples: int
    rows: int  # of each sample
    num_features: int  # F
    recipe: dict[str, Any]  # plain JSON values, such as {"encoder": "resnet50", "patch_size": 224}
    format: str = FORMAT

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the recipe, the same for all shards of a store."""
        return recipe_fingerprint(self.recipe)

    @property
    def block_bytes(self) -> int:
        return self.rows * row_bytes(self.dtype, self.num_features)

    @property
    def file_bytes(self) -> int:
        return HEADER_BYTES + self.samples * (self.block_bytes + CRC_BYTES)

    def encoded(self) -> bytes:
        """The header's bytes in the file."""
        text = json.dumps({**dataclasses.asdict(self), "fingerprint": self.fingerprint}, sort_keys=True).encode()
        if len(text) > HEADER_BYTES:
            raise ValueError(f"feature store: a header of {len(text)} bytes, at most {HEADER_BYTES}; shorten the recipe")
        return text.ljust(HEADER_BYTES)


class StoreWriter:
    """Writes a shard's store block by block; it is a store once closed."""

    def __init__(self, path: Path, dtype: StoreDtype, rows: int, num_features: int, recipe: dict[str, Any]) -> None:
        self._header = StoreHeader(dtype, 0, rows, num_features, recipe)
        self._file = path.open("wb")
        self._file.write(bytes(HEADER_BYTES))
        self._crcs: list[int] = []

    def add(self, rows: np.ndarray) -> None:
        """Append one sample's (rows, F) float32.

        Raises:
            ValueError: another shape, or features that the store's dtype cannot hold.
        """
        expected = (self._header.rows, self._header.num_features)
        if rows.shape != expected:
            raise ValueError(f"feature store: rows {rows.shape}, expected {expected}")
        block = pack_rows(rows, self._header.dtype).tobytes()
        self._crcs.append(zlib.crc32(block))
        self._file.write(block)

    def add_hole(self) -> None:
        """Append a sample that has no features."""
        block = bytes(self._header.block_bytes)
        self._crcs.append(zlib.crc32(block) ^ INVERTED)
        self._file.write(block)

    def abandon(self) -> None:
        """Close the file without making it a store."""
        self._file.close()

    def close(self) -> int:
        """Write what stands around the blocks; returns the number of samples."""
        self._file.write(np.array(self._crcs, "<u4").tobytes())
        self._file.seek(0)
        self._file.write(dataclasses.replace(self._header, samples=len(self._crcs)).encoded())
        self._file.close()
        return len(self._crcs)


class FeatureStore:
    """A shard's store, mapped into memory: opening costs nothing, a block is read where it lies."""

    def __init__(self, path: Path) -> None:
        """Raises ValueError: no store there, cut short, or not of this format."""
        self.path, self.header = path, read_store_header(path)
        data = self._data = np.asarray(np.memmap(path, np.uint8, mode="r"))  # a plain array: its slices cost half
        if len(data) != self.header.file_bytes:
            raise ValueError(f"{path}: {len(data):,} bytes, expected {self.header.file_bytes:,} by its header: cut short or "
                             "changed; prepare or encode the shards again")
        end = HEADER_BYTES + self.header.samples * self.header.block_bytes
        self._blocks = data[HEADER_BYTES:end].reshape(self.header.samples, self.header.block_bytes)
        self._crcs = data[end:]  # as bytes: they need not lie on a multiple of 4
        self._whole = np.zeros(self.header.samples, bool)  # blocks that were compared with their CRC32

    def copy(self, place: int, out: np.ndarray) -> bool:
        """Copy block `place` into `out` (block_bytes,) uint8; False where it is not what was written.

        The CRC32 is compared when this process reads the block for the first time.
        """
        out[:] = self._blocks[place]
        if not self._whole[place]:
            self._whole[place] = zlib.crc32(out.data) == self.crc(place)
        return bool(self._whole[place])

    def is_hole(self, place: int) -> bool:
        """Whether block `place` was written for a photograph that could not be read."""
        return not self._blocks[place].any() and self.crc(place) == zlib.crc32(self._blocks[place]) ^ INVERTED

    def pin(self) -> None:
        """Keep the file's pages in memory, shared by all processes that map it; reads it once.

        Raises:
            ValueError: the system does not allow so much locked memory.
        """
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mlock(ctypes.c_void_p(self._data.ctypes.data), ctypes.c_size_t(len(self._data))):
            reason = os.strerror(ctypes.get_errno())
            raise ValueError(f"data.pin_store=true: {len(self._data):,} bytes of {self.path} cannot be locked in memory: "
                             f"{reason}; raise 'ulimit -l' or set data.pin_store=false")

    def crc(self, place: int) -> int:
        """The CRC32 that block `place` was written with."""
        return int(self._crcs[CRC_BYTES * place : CRC_BYTES * (place + 1)].view("<u4")[0])


def read_store_header(path: Path) -> StoreHeader:
    """A store's header.

    Raises:
        ValueError: the file cannot be read or is no store of this format.
    """
    try:
        with path.open("rb") as file:
            values = json.loads(file.read(HEADER_BYTES))
        fingerprint = values.pop("fingerprint")
        header = StoreHeader(**values)
        usable = header.format == FORMAT and header.dtype in STORE_DTYPES and header.samples >= 0 \
            and 0 < header.rows <= MOST_ROWS and 0 < header.num_features <= MOST_FEATURES \
            and header.fingerprint == fingerprint
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}; prepare or encode the shards again") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        usable = False
    if not usable:
        raise ValueError(f"{path}: its first {HEADER_BYTES} bytes are not the header of a feature store of this version "
                         f"('{FORMAT}'); prepare or encode the shards again")
    return header


def recipe_fingerprint(recipe: dict[str, Any]) -> str:
    """SHA-256 of a recipe's names and values, whatever their order."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
