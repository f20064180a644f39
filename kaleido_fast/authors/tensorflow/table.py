"""LevelDB's table, the index of a checkpoint: sorted keys and values in blocks, each with a checksum.

    block    entries, the places of their restarts (uint32 each), how many restarts (uint32)
    trailer  behind each block: type (0 plain, 1 snappy), masked CRC-32C of block and type (uint32)
    entry    bytes shared with the key before, bytes of its own, bytes of the value (varints); the two
    footer   the last 48 bytes: (offset, size) of the meta index and of the index, filled up with zeros; a magic number

The index block's values are the (offset, size) of the data blocks.
"""

from collections.abc import Iterator
from pathlib import Path

from kaleido_fast.authors.tensorflow.crc32c import crc32c, mask
from kaleido_fast.authors.tensorflow.protobuf import varint

MAGIC, FOOTER, TRAILER = bytes.fromhex("57fb808b247547db"), 48, 5
PLAIN, SNAPPY = 0, 1
STRANGERS = {b"\x89HDF": "an HDF5 file", b"PK\x03\x04": "a zip archive, such as torch.save writes", b"\x80": "a pickle"}


def read_table(file: Path) -> dict[bytes, bytes]:
    """All entries, in the order of their keys.

    Raises:
        ValueError: not such a table, cut, changed or compressed; says which block.
    """
    data = _read(file)
    try:
        end = len(data) - FOOTER
        place = _handle(data, end)[1]
        index, _ = _handle(data, place)
        entries: dict[bytes, bytes] = {}
        _block(data, _handle(data, end)[0])  # the meta index has nothing to say, but it must be whole
        for _, handle in _entries(_block(data, index)):
            for key, value in _entries(_block(data, _handle(handle, 0)[0])):
                if entries and key <= next(reversed(entries)):
                    raise ValueError("its keys are not in order")
                entries[key] = value
    except ValueError as error:
        raise ValueError(f"{file}: damaged: {error}; copy it again from where it was trained") from None
    return entries


def _read(file: Path) -> bytes:
    """The whole file, once its end is a table's."""
    try:
        with file.open("rb") as stream:
            start = stream.read(FOOTER)
            if len(start) == FOOTER:
                stream.seek(-FOOTER, 2)
                if stream.read().endswith(MAGIC):
                    stream.seek(0)
                    return stream.read()
    except OSError as error:
        raise ValueError(f"{file}: cannot be read: {error.strerror}") from None
    other_kind = next((name for sign, name in STRANGERS.items() if start.startswith(sign)), "")
    other_kind = f"; it is {other_kind}" if other_kind else "; it is empty" if not start else ""
    raise ValueError(f"{file}: not the index of a TensorFlow checkpoint, or cut at its end{other_kind}")


def _handle(data: bytes, place: int) -> tuple[tuple[int, int], int]:
    """(offset, size) of a block, and the place behind."""
    offset, place = varint(data, place)
    size, place = varint(data, place)
    return (offset, size), place


def _block(data: bytes, handle: tuple[int, int]) -> bytes:
    offset, size = handle
    name = f"the block at byte {offset}"
    end = offset + size
    if end + TRAILER > len(data) - FOOTER:
        raise ValueError(f"{name} would end at {end + TRAILER}, behind the last at {len(data) - FOOTER}")
    if mask(crc32c(data[offset : end + 1])) != int.from_bytes(data[end + 1 : end + TRAILER], "little"):
        raise ValueError(f"{name} has another checksum than stored")
    if data[end] != PLAIN:
        kind = "compressed with snappy" if data[end] == SNAPPY else f"of an unknown type {data[end]}"
        raise ValueError(f"{name} is {kind}, only plain blocks are read, as tf.train.Saver writes them")
    return data[offset:end]


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    end = len(block) - 4
    end -= 4 * int.from_bytes(block[end:], "little") if end >= 0 else 0
    if end < 0:
        raise ValueError("a block is shorter than its list of restarts")
    key, place, entries = b"", 0, block[:end]
    while place < end:
        shared, place = varint(entries, place)
        unshared, place = varint(entries, place)
        size, place = varint(entries, place)
        if shared > len(key) or unshared + size > end - place:
            raise ValueError("an entry is longer than its block")
        key = key[:shared] + entries[place : place + unshared]
        yield key, entries[place + unshared : place + unshared + size]
        place += unshared + size
