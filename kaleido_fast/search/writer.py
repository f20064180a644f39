"""Writing an index: the next state beside the one that is there, which it replaces at one moment."""

import os
import secrets
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from kaleido_fast.files import cannot_write
from kaleido_fast.options import OptionError
from kaleido_fast.search.folder import (
    ARRAYS, COMMIT, HEADER, LINES, NEXT, PHOTOGRAPHS, TABLE, TEXTS, Entry, Header, finish_change, table_dtype,
)

_HEAD = 128  # bytes of a .npy file before its numbers


class Writer:
    """Writes the next state of an index product by product; `commit` makes it the state.

    Args:
        header: its model, size and sources; counts and names come from what is added.
    """

    def __init__(self, folder: Path, header: Header) -> None:
        self._folder, self._header = folder, header
        self._rows: list[tuple[int, bytes, int, int, int, int]] = []
        self._files: dict[str, BinaryIO] = {}
        self._categories: dict[str, int] = {}
        self._subcategories: dict[str, int] = {}
        self._place = self._photographs = self._texts = 0

    def __enter__(self) -> "Writer":
        try:
            for name in (PHOTOGRAPHS, TEXTS, LINES):
                self._files[name] = (self._folder / (name + NEXT)).open("wb")
            for name in (PHOTOGRAPHS, TEXTS):
                self._files[name].write(bytes(_HEAD))
        except OSError as error:
            raise self._full(error) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for file in self._files.values():
            file.close()
        if kind is not None and not (self._folder / COMMIT).exists():
            for name in (*ARRAYS, HEADER):
                (self._folder / (name + NEXT)).unlink(missing_ok=True)

    def add(self, entry: Entry, photographs: np.ndarray, text: np.ndarray) -> None:
        """One product: its line, its photographs (m, E) fp16 in the order of its places, its text (E,) fp16."""
        line = entry.line()
        self._rows.append((
            self._place, entry.id.encode(), self._photographs, len(photographs),
            self._categories.setdefault(entry.category, len(self._categories)),
            self._subcategories.setdefault(entry.subcategory, len(self._subcategories))))
        try:
            self._files[LINES].write(line)
            self._files[PHOTOGRAPHS].write(photographs.astype(np.float16).tobytes())
            self._files[TEXTS].write(text.astype(np.float16).tobytes())
        except OSError as error:
            raise self._full(error) from error
        self._place += len(line)
        self._photographs += len(photographs)
        self._texts += bool(entry.text)

    def commit(self) -> Header:
        """Make what was added the index; the header that it has now."""
        header = replace(
            self._header, products=len(self._rows), photographs=self._photographs, texts=self._texts,
            categories=tuple(self._categories), subcategories=tuple(self._subcategories), state=secrets.token_hex(8))
        widest = max((len(row[1]) for row in self._rows), default=1)
        try:
            for name, rows in ((PHOTOGRAPHS, self._photographs), (TEXTS, len(self._rows))):
                self._files[name].seek(0)
                self._files[name].write(_head((rows, header.size)))
            with (self._folder / (TABLE + NEXT)).open("wb") as table:
                np.save(table, np.array(self._rows, table_dtype(widest)))
                self._files[TABLE] = table
                for file in self._files.values():
                    file.flush()
                    os.fsync(file.fileno())
            beside = self._folder / (HEADER + NEXT)
            beside.write_text(header.text(), encoding="utf-8")
            os.replace(beside, self._folder / COMMIT)
            finish_change(self._folder)
        except OSError as error:
            raise self._full(error) from error
        return header

    def _full(self, error: OSError) -> OptionError:
        return cannot_write(self._folder, error, "the index is as it was; make room and run the same command again")


def _head(shape: tuple[int, ...]) -> bytes:
    """The first bytes of a .npy file of fp16 numbers."""
    text = f"{{'descr': '<f2', 'fortran_order': False, 'shape': {shape}, }}"
    head = b"\x93NUMPY\x01\x00" + (_HEAD - 10).to_bytes(2, "little") + text.encode().ljust(_HEAD - 11) + b"\n"
    assert len(head) == _HEAD
    return head
