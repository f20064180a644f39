"""A writer of V2 checkpoints, for tests: several data files, every type, and tables that a reader must refuse."""

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

TYPES = {"float32": 1, "float64": 2, "int32": 3, "uint8": 4, "int16": 5, "int64": 9, "bool": 10, "float16": 19}
BFLOAT16 = 14
REGISTERS = list(range(256))
for _ in range(8):
    REGISTERS = [value >> 1 ^ (0x82F63B78 if value & 1 else 0) for value in REGISTERS]


class Bfloat16:
    """(…) uint16 bits."""

    def __init__(self, bits: np.ndarray) -> None:
        self.bits, self.shape = bits.astype(np.uint16), bits.shape


def write_checkpoint(prefix: Path, variables: Mapping[str, "np.ndarray | Bfloat16"], num_shards: int = 1) -> Path:
    """The variables dealt out to the data files in turn, with some bytes between them that nobody uses."""
    shards, entries = [bytearray() for _ in range(num_shards)], {b"": header(num_shards)}
    for number, (name, value) in enumerate(sorted(variables.items())):
        shard = shards[number % num_shards]
        shard += b"unused"[: number % 7]
        data = (value.bits if isinstance(value, Bfloat16) else value).tobytes()
        kind = BFLOAT16 if isinstance(value, Bfloat16) else TYPES[value.dtype.name]
        entries[name.encode()] = entry(kind, value.shape, number % num_shards, len(shard), len(data), masked(data))
        shard += data
    for number, shard in enumerate(shards):
        Path(f"{prefix}.data-{number:05d}-of-{num_shards:05d}").write_bytes(shard)
    write_table(Path(f"{prefix}.index"), entries)
    return prefix


def write_table(file: Path, entries: Mapping[bytes, bytes], block_entries: int = 20, restart: int = 4, kind: int = 0) -> None:
    """A LevelDB table; `kind` is the type that each data block's trailer names."""
    out, handles, items = bytearray(), {}, list(entries.items())
    for start in range(0, len(items), block_entries):
        piece = dict(items[start : start + block_entries])
        handles[max(piece)] = _append(out, _block(piece, restart), kind)
    meta = _append(out, _block({}, 1))
    footer = meta + _append(out, _block(handles, 1))
    file.write_bytes(out + footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57))


def header(num_shards: int, big_endian: int = 0, least_version: int = 0) -> bytes:
    return number(1, num_shards) + number(2, big_endian) + part(3, number(1, 1) + number(2, least_version))


def entry(kind: int, shape: tuple[int, ...], shard: int, offset: int, size: int, crc: int) -> bytes:
    sizes = b"".join(part(2, number(1, size)) for size in shape)
    return (number(1, kind) + part(2, sizes) + number(3, shard) + number(4, offset) + number(5, size)
            + varint(6 << 3 | 5) + struct.pack("<I", crc))


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value % (1 << 64))


def part(field: int, message: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(message)) + message


def varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def crc32c(data: bytes) -> int:
    """Byte by byte, by the table that the definition gives."""
    register = 0xFFFFFFFF
    for octet in data:
        register = REGISTERS[(register ^ octet) & 0xFF] ^ register >> 8
    return register ^ 0xFFFFFFFF


def masked(data: bytes) -> int:
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _append(out: bytearray, block: bytes, kind: int = 0) -> bytes:
    """Add a block and its trailer; its handle."""
    handle = varint(len(out)) + varint(len(block))
    out += block + bytes([kind]) + struct.pack("<I", masked(block + bytes([kind])))
    return handle


def _block(entries: Mapping[bytes, bytes], restart: int) -> bytes:
    out, restarts, before = bytearray(), [0], b""
    for count, (key, value) in enumerate(entries.items()):
        if count % restart == 0 and count:
            restarts.append(len(out))
            before = b""
        shared = next((i for i, (a, b) in enumerate(zip(before, key, strict=False)) if a != b), min(len(before), len(key)))
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        before = key
    return bytes(out) + struct.pack(f"<{len(restarts)}I", *restarts) + struct.pack("<I", len(restarts))
