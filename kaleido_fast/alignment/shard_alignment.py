"""A shard's alignments on disk, and what says that they are its own and by whom they were made.

    <shard>.alignment.NAME.npy     (n, W) int64, one mask a token: what the loader reads
    <shard>.alignment.NAME.json    the recipe, the SHA-256 of the masks, the shard's part of the summary, and where the
                                   captioner was, for figures of where it looked

Both are written beside and renamed, the record last: masks without their record are no alignments.
"""

import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kaleido_fast.data.shards.manifest import file_digest
from kaleido_fast.files import cannot_write

ADVICE = "make room and start again; finished shards are kept"


@dataclass(frozen=True, slots=True)
class ShardFiles:
    """The two files of one shard."""

    folder: Path
    shard: str
    name: str  # of the alignment

    @property
    def masks(self) -> Path:
        return self.folder / f"{self.shard}.alignment.{self.name}.npy"

    @property
    def record(self) -> Path:
        return self.folder / f"{self.shard}.alignment.{self.name}.json"

    def write(self, masks: np.ndarray, recipe: dict[str, Any], counts: dict[str, Any], captioner: Path) -> None:
        """Write (n, W) masks and their record.

        Args:
            captioner: its folder.
        Raises:
            ValueError: they cannot be written.
        """
        stream = io.BytesIO()
        np.save(stream, masks)
        self.record.unlink(missing_ok=True)  # of what was there before
        _replace(self.masks, stream.getvalue())
        record = {"recipe": recipe, "sha256": file_digest(self.masks).hex(), "counts": counts,
                  "captioner": str(captioner.absolute())}
        _replace(self.record, json.dumps(record).encode())

    def read(self) -> dict[str, Any] | None:
        """The record; None where the shard was not finished.

        Raises:
            ValueError: it is no record.
        """
        try:
            record = json.loads(self.record.read_text(encoding="utf-8"))
            assert all(isinstance(record[key], kind) for key, kind in (("recipe", dict), ("sha256", str), ("counts", dict)))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AssertionError):
            raise ValueError(f"{self.record}: not readable as a record of alignments; remove it and start again") from None
        return record

    def is_finished(self, recipe: dict[str, Any]) -> bool:
        """Whether the shard has whole alignments made by this very recipe.

        Raises:
            ValueError: it has some of another recipe, or they were changed since.
        """
        record = self.read()
        if record is None:
            return False
        for key in sorted(recipe.keys() | record["recipe"].keys()):
            recorded, wanted = record["recipe"].get(key), recipe.get(key)
            if recorded != wanted:
                raise ValueError(f"{self.masks}: made with {key}={_short(recorded)}, not {_short(wanted)}; give another "
                                 "align.name, or align.replace=true to make it anew")
        if not self.masks.is_file() or file_digest(self.masks).hex() != record["sha256"]:
            raise ValueError(f"{self.masks}: missing or changed since it was written; set align.replace=true to make it anew")
        return True

    def remove(self) -> None:
        """Take both files away, the record first."""
        for file in (self.record, self.masks):
            file.unlink(missing_ok=True)


def _replace(file: Path, data: bytes) -> None:
    beside = file.with_name(f".{file.name}.writing")
    try:
        beside.write_bytes(data)
        os.replace(beside, file)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise cannot_write(file, error, ADVICE) from error


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:16]}…"
