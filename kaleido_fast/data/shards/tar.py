"""The tars of shards: plain files in blocks of 512 bytes, a block of header before each.

Times, owners and order are fixed, so that a tar's bytes depend on its samples alone.
"""

import os
import tarfile

BLOCK = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK)  # what a tar ends with: two empty blocks


def whole_blocks(length: int) -> int:
    """Bytes that a file of `length` bytes takes in the tar."""
    return -(-length // BLOCK) * BLOCK


def next_offset(offset: int, length: int) -> int:
    """Where the bytes of the next file begin, behind a file of `length` bytes at `offset`."""
    return offset + whole_blocks(length) + BLOCK


def header(name: str, length: int) -> bytes:
    """The header of a file."""
    info = tarfile.TarInfo(name)
    info.size = length
    return info.tobuf(tarfile.USTAR_FORMAT)


def read_header(tar: int, offset: int) -> tarfile.TarInfo:
    """The header of the file whose bytes begin at `offset`; `tar` is a file descriptor.

    Raises:
        ValueError: there is none, or it is damaged.
    """
    if offset < BLOCK:
        raise ValueError("no member")
    try:
        return tarfile.TarInfo.frombuf(os.pread(tar, BLOCK, offset - BLOCK), "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise ValueError(f"no member ({error})") from None
