"""The wire format of protocol buffers, as far as checkpoints use it: varints, fixed numbers, bytes."""

from collections.abc import Iterator
from typing import NamedTuple

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types
SIZES = {FIXED64: 8, FIXED32: 4}


class Field(NamedTuple):
    """One field of a message: its number, and an int or bytes."""

    number: int
    value: int | bytes

    def integer(self) -> int:
        """Raises ValueError where it is bytes."""
        if isinstance(self.value, bytes):
            raise ValueError(f"field {self.number} should be a number")
        return self.value

    def signed(self) -> int:
        """A number as int64 holds it."""
        value = self.integer()
        return value - (1 << 64) if value >> 63 else value

    def message(self) -> Iterator["Field"]:
        """The fields of the message in it. Raises ValueError where it is a number."""
        if isinstance(self.value, int):
            raise ValueError(f"field {self.number} should be a message")
        return fields(self.value)


def varint(data: bytes, place: int) -> tuple[int, int]:
    """A number of 64 bits, lowest seven first, at `place`; and the place behind it.

    Raises:
        ValueError: it is cut, or longer than 64 bits.
    """
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            raise ValueError("a number is cut")
        value |= (data[place] & 0x7F) << shift
        place += 1
        if data[place - 1] < 0x80:
            if value >> 64:
                break
            return value, place
    raise ValueError("a number has more than 64 bits")


def fields(message: bytes) -> Iterator[Field]:
    """All fields in order.

    Raises:
        ValueError: the message is cut or no message.
    """
    place = 0
    while place < len(message):
        key, place = varint(message, place)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, place = varint(message, place)
            yield Field(number, value)
            continue
        if kind == BYTES:
            size, place = varint(message, place)
        elif kind in SIZES:
            size = SIZES[kind]
        else:
            raise ValueError(f"field {number} has wire type {kind}")
        if size > len(message) - place:
            raise ValueError(f"field {number} is cut")
        content, place = message[place : place + size], place + size
        yield Field(number, content if kind == BYTES else int.from_bytes(content, "little"))
