"""CRC-32C against its published check values and against the definition, at every edge of the folding."""

from types import ModuleType

import numpy as np
import pytest

from kaleido_fast.authors.tensorflow.crc32c import DEGREE, PIECE, PLACES, WINDOW, crc32c, mask


@pytest.mark.parametrize(
    ("data", "expected"),
    [  # the catalogue's check value; RFC 3720, B.4
        (b"123456789", 0xE3069283), (b"", 0), (bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E), (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_published_values(data: bytes, expected: int) -> None:
    assert crc32c(data) == crc32c(np.frombuffer(data, np.uint8)) == crc32c(memoryview(data)) == expected


def test_the_sparse_polynomial_is_a_multiple() -> None:
    """x^6777 + x^484 + x^100 + 1 leaves nothing when divided by P."""
    remainder, power = 0, 1
    for degree in range(DEGREE + 1):
        remainder ^= power if degree in {DEGREE - place for place in PLACES} | {DEGREE} else 0
        power = power << 1 ^ (0x11EDC6F41 if power >> 31 else 0)
    assert remainder == 0


def test_every_edge_of_the_folding(writer: ModuleType) -> None:
    data = np.random.default_rng(1).integers(0, 256, WINDOW + 20, dtype=np.uint8)
    data[:9] = 0  # leading zeros count
    for size in (1, 3, 4, 5, DEGREE - 5, DEGREE - 4, DEGREE - 3, DEGREE + PLACES[0] + 1, WINDOW, WINDOW + 1, WINDOW + 20):
        assert crc32c(data[:size]) == writer.crc32c(data[:size].tobytes()), size


def test_large_ones_piece_by_piece(writer: ModuleType) -> None:
    data = np.random.default_rng(2).integers(0, 256, 2 * PIECE + WINDOW, dtype=np.uint8)
    for size in (PIECE - 3, PIECE, PIECE + 2, len(data)):
        assert crc32c(data[:size]) == writer.crc32c(data[:size].tobytes()), size
    assert crc32c(data.view(np.uint64)) == crc32c(data)
    before = crc32c(data)
    data[PIECE + 5] ^= 1
    assert crc32c(data) != before


def test_mask_is_leveldbs() -> None:
    assert mask(0) == 0xA282EAD8 and mask(0xE3069283) == ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) & 0xFFFFFFFF
