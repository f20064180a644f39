"""A TensorFlow V2 checkpoint, as tf.train.Saver writes it: PREFIX.index and PREFIX.data-00000-of-00001 (or more).

The index is a LevelDB table. Its empty key holds the header (number of data files, byte order, version), every other key
is a variable's name and holds its type, shape, data file, place there and masked CRC-32C.
"""

import math
import mmap
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kaleido_fast.authors.tensorflow.crc32c import crc32c, mask
from kaleido_fast.authors.tensorflow.protobuf import Field, fields
from kaleido_fast.authors.tensorflow.table import read_table

VERSION, MOST_DATA_FILES = 1, 99_999  # of the format
SLICE = b"\0"  # what the keys of a variable's slices begin with
BFLOAT16 = "bfloat16"
DTYPES = {1: "float32", 2: "float64", 3: "int32", 9: "int64", 14: BFLOAT16, 19: "float16"}
OTHERS = {4: "uint8", 5: "int16", 6: "int8", 7: "string", 8: "complex64", 10: "bool", 11: "qint8", 12: "quint8",
          13: "qint32", 15: "qint16", 16: "quint16", 17: "uint16", 18: "complex128", 20: "resource", 21: "variant",
          22: "uint32", 23: "uint64"}
PARTS = re.compile(r"\.(index|meta|data-\d{5}-of-\d{5})$")


@dataclass(frozen=True, slots=True)
class StoredVariable:
    """What the index says of a variable."""

    dtype: str
    shape: tuple[int, ...]
    data_file: int  # number of the data file
    offset: int  # bytes
    size: int  # bytes
    crc: int  # masked
    sliced: bool  # stored in pieces, under other keys

    @property
    def stored(self) -> np.dtype:
        """NumPy's type of its bytes; NumPy has no bfloat16."""
        return np.dtype("<u2") if self.dtype == BFLOAT16 else np.dtype(self.dtype).newbyteorder("<")


class TfCheckpoint(Mapping[str, np.ndarray]):
    """Variables by name, in the order of the names; each is read and its checksum verified when it is asked for."""

    def __init__(self, prefix: Path, variables: dict[str, StoredVariable], data_files: list["DataFile"]) -> None:
        self.prefix, self.variables, self._data_files = prefix, variables, data_files

    @classmethod
    def open(cls, given: Path) -> "TfCheckpoint":
        """Read the index and map the data files.

        Args:
            given: the prefix that all files share, or one of the files.
        Raises:
            ValueError: a file is missing, cut, changed or not of a V2 checkpoint.
        """
        prefix = given.with_name(PARTS.sub("", given.name))
        index = Path(f"{prefix}.index")
        if not index.is_file():
            raise ValueError(_no_index(prefix, index))
        entries = read_table(index)
        try:
            num_data_files = _num_data_files(entries.pop(b"", None))
            variables = _variables(entries, num_data_files)
        except ValueError as error:
            raise ValueError(f"{index}: {error}") from None
        data_files = [DataFile(Path(f"{prefix}.data-{number:05d}-of-{num_data_files:05d}"), f"{number + 1} of {num_data_files}")
                  for number in range(num_data_files)]
        for name, variable in variables.items():
            data_files[variable.data_file].check(name, variable)
        return cls(prefix, variables, data_files)

    def __getitem__(self, name: str) -> np.ndarray:
        """A variable's values; bfloat16 widened to float32, the others as they are, read-only.

        Raises:
            KeyError: there is none of that name.
            ValueError: its checksum differs, its type is not known, or it is stored in slices.
        """
        variable = self.variables[name]
        if variable.sliced:
            raise ValueError(f"{self.prefix}.index: '{name}' is stored in slices, which are not read; save the model "
                             "again without a partitioner")
        if variable.dtype not in DTYPES.values():
            raise ValueError(f"{self.prefix}.index: '{name}' is {variable.dtype}; only {', '.join(DTYPES.values())} "
                             "are read")
        values = np.frombuffer(self._data_files[variable.data_file].read(name, variable), variable.stored)
        if variable.dtype == BFLOAT16:
            values = (values.astype(np.uint32) << 16).view(np.float32)
        return values.reshape(variable.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.variables)

    def __len__(self) -> int:
        return len(self.variables)


class DataFile:
    """A data file, mapped into memory."""

    def __init__(self, file: Path, number: str) -> None:
        """Raises ValueError where it cannot be read; `number` is 'n of m', for messages."""
        self.file = file
        try:
            with file.open("rb") as stream:
                self.size = stream.seek(0, 2)
                self._bytes = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) if self.size else b"")
        except FileNotFoundError:
            raise ValueError(f"{file}: missing; the index names it as data file {number}") from None
        except OSError as error:
            raise ValueError(f"{file}: cannot be read: {error.strerror or error}") from None

    def check(self, name: str, variable: StoredVariable) -> None:
        """Raises ValueError where the file ends before the variable does."""
        end = variable.offset + variable.size
        if end > self.size:
            raise ValueError(f"{self.file}: cut: {self.size:,} bytes, '{name}' ends at {end:,}; copy it again")

    def read(self, name: str, variable: StoredVariable) -> memoryview:
        """A variable's bytes, verified."""
        data = self._bytes[variable.offset : variable.offset + variable.size]
        if mask(crc32c(data)) != variable.crc:
            raise ValueError(f"{self.file}: damaged: '{name}' (bytes {variable.offset:,} to "
                             f"{variable.offset + variable.size:,}) has another checksum than the index; copy it again")
        return data


def _no_index(prefix: Path, index: Path) -> str:
    if prefix.is_dir():
        prefixes = [path.name.removesuffix(".index") for path in sorted(prefix.glob("*.index"))]
        return (f"{prefix}: a folder; give the prefix of the checkpoint's files"
                + (f", such as {prefix / prefixes[-1]}" if prefixes else ", but no .index file is there"))
    if prefix.is_file():
        return (f"{prefix}: one file without {index.name}: no V2 checkpoint; a V1 checkpoint (TensorFlow before 0.12) "
                "is not read, save it again with tf.train.Saver")
    return f"{index}: no such file; give the prefix that a checkpoint's .index and .data files share"


def _num_data_files(header: bytes | None) -> int:
    """From BundleHeaderProto: 1 data files, 2 byte order (0 little), 3 version (2 the least a reader must know)."""
    num_data_files, big_endian, version = 0, 0, 0
    try:
        if header is None:
            raise ValueError("it has none")
        for field in fields(header):
            if field.number == 1:
                num_data_files = field.integer()
            elif field.number == 2:
                big_endian = field.integer()
            elif field.number == 3:
                version = max([part.signed() for part in field.message() if part.number == 2], default=0)
    except ValueError as error:
        raise ValueError(f"a table without a V2 checkpoint's header ({error}); V1 checkpoints are not read, save it "
                         "again with tf.train.Saver") from None
    if big_endian:
        raise ValueError("written on a big-endian machine, only little-endian files are read")
    if version > VERSION:
        raise ValueError(f"format version {version}, only versions to {VERSION} are read")
    if not 1 <= num_data_files <= MOST_DATA_FILES:
        raise ValueError(f"names {num_data_files} data files, expected 1 to {MOST_DATA_FILES}")
    return num_data_files


def _variables(entries: dict[bytes, bytes], num_data_files: int) -> dict[str, StoredVariable]:
    variables = {}
    for key, value in entries.items():
        if key.startswith(SLICE):
            continue
        name = key.decode("utf-8", "backslashreplace")
        try:
            variables[name] = _variable(value, num_data_files)
        except ValueError as error:
            raise ValueError(f"'{name}': {error}") from None
    return variables


def _variable(entry: bytes, num_data_files: int) -> StoredVariable:
    """From BundleEntryProto: 1 type, 2 shape, 3 data file, 4 offset, 5 size, 6 masked CRC-32C, 7 slices."""
    numbers, sliced = dict.fromkeys((1, 3, 4, 5, 6), 0), False
    shape: tuple[int, ...] = ()
    for field in fields(entry):
        if field.number in numbers:
            numbers[field.number] = field.integer()
        elif field.number == 2:
            shape = _shape(field)
        elif field.number == 7:
            sliced = True
    kind, data_file, offset, size, crc = numbers.values()
    if data_file >= num_data_files:
        raise ValueError(f"lies in data file {data_file} of {num_data_files}, counted from 0")
    variable = StoredVariable((DTYPES | OTHERS).get(kind, f"of type {kind}"), shape, data_file, offset, size, crc, sliced)
    if kind in DTYPES and not sliced and size != math.prod(shape) * variable.stored.itemsize:
        raise ValueError(f"{size} bytes are not {variable.dtype} {shape}")
    return variable


def _shape(field: Field) -> tuple[int, ...]:
    """From TensorShapeProto: 2 dimensions (1 size), 3 whether their number is unknown."""
    shape = []
    for part in field.message():
        if part.number == 2:
            shape.append(max([inner.signed() for inner in part.message() if inner.number == 1], default=0))
        elif part.number == 3 and part.integer():
            raise ValueError("a shape of unknown rank")
    if any(size < 0 for size in shape):
        raise ValueError(f"a shape {tuple(shape)} of unknown size")
    return tuple(shape)
