"""The manifest of a folder of shards: counts, names and fingerprints only, small however many products there are."""

import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from kaleido_fast.files import read_json
from kaleido_fast.folder_lock import in_turn

FORMAT = 1
FORMAT_OF_FEATURES = 2  # of shards with stored features instead of photographs, which older versions cannot read
FORMAT_OF_FIELDS = 3  # of shards whose texts have fields, which older versions cannot read either
FORMATS = (FORMAT, FORMAT_OF_FEATURES, FORMAT_OF_FIELDS)
MANIFEST = "manifest.json"
VOCABULARY = "vocab.txt"
ROWS_MULTIPLE = 64  # the word table's rows, so that the decoder's matrix product has an even width


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What the vocabulary's readers need; the words are in vocab.txt."""

    size: int
    padded_size: int  # rows of the word table, a multiple of 64
    pad_id: int
    unk_id: int
    cls_id: int
    sep_id: int
    mask_id: int
    ordinary_first: int  # ordinary ids, inclusive (SPEC 4)
    ordinary_last: int
    fingerprint: str  # SHA-256 of vocab.txt


@dataclass(frozen=True, slots=True)
class ShardFeatures:
    """Of shards whose samples have stored features and no photographs: what the stores hold (feature_store.py)."""

    layout: str  # of the authors' files: "pretraining" (with a plan), "retrieval" or "category"
    dtype: Literal["fp32", "fp16", "uint8"]  # row_format.StoreDtype; reading a manifest needs no torch
    rows: int  # of each sample
    num_features: int  # F
    fingerprint: str  # of the stores' recipe

    @property
    def has_plan(self) -> bool:
        """Whether every sample comes with what was masked, turned, moved and greyed."""
        return self.layout == "pretraining"


@dataclass(frozen=True, slots=True)
class SplitEntry:
    """One split: its shards in order, with their samples."""

    shards: tuple[str, ...] = ()
    samples: tuple[int, ...] = ()
    products: int = 0


@dataclass(frozen=True, slots=True)
class Manifest:
    """manifest.json."""

    vocabulary: Vocabulary
    categories: tuple[str, ...]
    subcategories: tuple[str, ...]
    splits: dict[str, SplitEntry]
    token_width: int  # W, ids stored a sample
    alignments: tuple[str, ...] = ()
    skipped_counts: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, list[str]] = field(default_factory=dict)  # first examples a reason
    fingerprint: str = ""  # SHA-256 over tables, tars and vocabulary
    max_side: int = 1024  # pixels; larger photographs were shrunk to it
    format: int = FORMAT
    features: ShardFeatures | None = None  # None: the samples have photographs
    fields: tuple[str, ...] = ()  # of the texts, in the order in which they are joined; none: a text is one piece
    # Alignments that `align` made later: name -> fingerprint of their files. `fingerprint` is that of what prepare wrote, so
    # that shards stay the same shards whatever alignments come and go.
    aligned: dict[str, str] = field(default_factory=dict)

    def files(self) -> tuple[str, ...]:
        """Names of the files that prepare wrote, without the manifest, sorted."""
        prepared = [name for name in self.alignments if name not in self.aligned]
        endings = [".table.npy", *(f".alignment.{name}.npy" for name in prepared)]
        if self.features is None:
            endings += [".tar", ".idx", *([".fields.npy"] if self.fields else [])]
        else:
            endings += [".features", ".jsonl", ".locations.npy", *([".plan.npy"] if self.features.has_plan else [])]
        shards = [shard + ending for entry in self.splits.values() for shard in entry.shards for ending in endings]
        tables = [name + ending for name in self.splits for ending in (".products.npy", ".by_subcategory.npy")]
        return tuple(sorted([*shards, *tables, VOCABULARY]))

    def aligned_files(self, name: str) -> tuple[str, ...]:
        """Names of the files of an alignment."""
        return tuple(f"{shard}.alignment.{name}.npy" for entry in self.splits.values() for shard in entry.shards)

    def fingerprint_with(self, alignment: str) -> str:
        """Of the shards under an alignment: what a run that goes on must find again."""
        if alignment not in self.aligned:
            return self.fingerprint
        return fingerprint(self.fingerprint.encode(), self.aligned[alignment].encode())

    def with_alignment(self, name: str, fingerprint: str) -> "Manifest":
        """The manifest that also names an alignment whose files have this fingerprint."""
        names = (*(other for other in self.alignments if other != name), name)
        return replace(self, alignments=names, aligned=self.aligned | {name: fingerprint})

    def without_alignment(self, name: str) -> "Manifest":
        """The manifest without one of the alignments that `align` made."""
        if name not in self.aligned:
            return self
        return replace(self, alignments=tuple(other for other in self.alignments if other != name),
                       aligned={other: fingerprint for other, fingerprint in self.aligned.items() if other != name})

    def require_photographs(self, folder: Path, what: str) -> None:
        """Refuse (ValueError) shards without photographs, for `what` needs them."""
        if self.features is not None:
            raise ValueError(f"{folder}: {what} needs photographs; these shards hold the features of the authors' "
                             f"{self.features.layout} files alone")

    def write(self, folder: Path) -> None:
        values = dataclasses.asdict(self)
        if self.features is None:
            del values["features"]  # older versions do not know it
        if not self.aligned:
            del values["aligned"]  # nor this
        if not self.fields:
            del values["fields"]  # nor this
        (folder / MANIFEST).write_text(json.dumps(values, indent=1), encoding="utf-8")

    @staticmethod
    def change(folder: Path, change: Callable[["Manifest"], "Manifest"]) -> None:
        """Replace the folder's manifest by what `change` makes of it as it is now: a reader sees the old or the new one.

        Processes that change it at the same time take turns, so that no change of another is lost.
        """
        with in_turn(folder), tempfile.TemporaryDirectory(dir=folder, prefix=".manifest") as beside:
            change(Manifest.read(folder)).write(Path(beside))
            os.replace(Path(beside) / MANIFEST, folder / MANIFEST)

    @staticmethod
    def read(folder: Path) -> "Manifest":
        """Read a folder's manifest.

        Raises:
            ValueError: there is none, it cannot be read, or it is of another format.
        """
        if not (folder / MANIFEST).is_file():
            raise ValueError(f"{folder}: no {MANIFEST} there; expected a folder written by 'kaleido-fast prepare'")
        values = read_json(folder / MANIFEST, "run prepare again")
        if values.get("format") not in FORMATS:
            raise ValueError(f"{folder / MANIFEST}: format {values.get('format')}, this version reads "
                             f"{', '.join(map(str, FORMATS))}; run prepare again")
        try:
            return _from_json(values)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{folder / MANIFEST}: not a manifest of format {values['format']} ({type(error).__name__}: "
                             f"{error}); run prepare again") from None


def _from_json(values: dict[str, Any]) -> Manifest:
    splits = {
        name: SplitEntry(tuple(entry["shards"]), tuple(map(int, entry["samples"])), int(entry["products"]))
        for name, entry in values["splits"].items()
    }
    features = ShardFeatures(**values["features"]) if values["format"] == FORMAT_OF_FEATURES else None
    return Manifest(**values | {
        "vocabulary": Vocabulary(**values["vocabulary"]), "splits": splits,
        "categories": tuple(values["categories"]), "subcategories": tuple(values["subcategories"]),
        "alignments": tuple(values["alignments"]), "features": features, "fields": tuple(values.get("fields", ())),
    })


def file_digest(file: Path) -> bytes:
    """SHA-256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def folder_fingerprint(digests: dict[str, bytes]) -> str:
    """The fingerprint of a folder of shards from the digests of its files by name."""
    return fingerprint(*(name.encode() + digests[name] for name in sorted(digests)))


def fingerprint(*parts: bytes) -> str:
    """SHA-256 over the parts, each with its length."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()
