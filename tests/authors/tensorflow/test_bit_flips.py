"""Flipped bits, cuts and hostile bytes: one line of ValueError, or the very same values; never anything else."""

import random
import struct
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from kaleido_fast.authors.tensorflow.checkpoint import TfCheckpoint


@pytest.fixture
def values() -> dict[str, np.ndarray]:
    return {f"scope/layer_{number}/kernel": np.arange(number * 2, dtype=np.float32).reshape(2, number) for number in range(9)}


@pytest.fixture
def small(tmp_path: Path, writer: ModuleType, values: dict[str, np.ndarray]) -> Path:
    return writer.write_checkpoint(tmp_path / "model", values, 2)


def test_every_byte_of_the_index(small: Path, values: dict[str, np.ndarray]) -> None:
    """Only the unused bytes of the footer may change unseen."""
    index = Path(f"{small}.index")
    whole = index.read_bytes()
    seen = 0
    for place in range(len(whole)):
        for bit in (place % 8,) if place < len(whole) - 48 else range(8):
            index.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            read = _reads(small, values)
            seen += not read
            assert not read or len(whole) - 48 <= place < len(whole) - 8, f"byte {place}, bit {bit}"
    assert seen >= len(whole) - 48


def test_every_cut_of_the_index(small: Path, values: dict[str, np.ndarray]) -> None:
    index = Path(f"{small}.index")
    whole = index.read_bytes()
    for size in range(0, len(whole), 3):
        index.write_bytes(whole[:size])
        assert not _reads(small, values), size


def test_random_changes_of_the_data_files(small: Path, values: dict[str, np.ndarray]) -> None:
    """Bytes between the variables are free."""
    draw, harmless = random.Random(4), 0
    for _ in range(300):
        file = Path(f"{small}.data-0000{draw.randrange(2)}-of-00002")
        whole = file.read_bytes()
        place = draw.randrange(len(whole))
        changed = whole[:place] if draw.random() < 0.3 else \
            whole[:place] + bytes([whole[place] ^ 1 << draw.randrange(8)]) + whole[place + 1 :]
        file.write_bytes(changed)
        harmless += _reads(small, values)
        file.write_bytes(whole)
    assert 0 < harmless < 60 and _reads(small, values)


def test_hostile_blocks_with_right_checksums(small: Path, values: dict[str, np.ndarray], writer: ModuleType) -> None:
    """Random bytes of the first block change and its checksum with them: no traceback, no endless loop, no giant array."""
    index = Path(f"{small}.index")
    whole, draw, refused = index.read_bytes(), random.Random(5), 0
    end = next(end for end in range(len(whole)) if whole[end] == 0  # the end of the first block
               and whole[end + 1 : end + 5] == struct.pack("<I", writer.masked(whole[: end + 1])))
    for _ in range(300):
        block = bytearray(whole[: end + 1])
        for _ in range(draw.randint(1, 3)):
            block[draw.randrange(end)] = draw.choice([0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)])
        index.write_bytes(bytes(block) + struct.pack("<I", writer.masked(bytes(block))) + whole[end + 5 :])
        try:
            for value in TfCheckpoint.open(small).values():
                assert value.nbytes < 1000
        except ValueError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 150


def _reads(prefix: Path, values: dict[str, np.ndarray]) -> bool:
    """Whether it is read; then everything must be as written."""
    try:
        checkpoint = TfCheckpoint.open(prefix)
        found = dict(checkpoint.items())
    except ValueError as error:
        assert str(prefix) in str(error) and "\n" not in str(error)
        return False
    assert found.keys() == values.keys()
    for name, value in values.items():
        assert found[name].dtype == value.dtype and found[name].tobytes() == value.tobytes(), name
    return True
