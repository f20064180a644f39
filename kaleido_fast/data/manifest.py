"""The manifest of a folder of shards: counts, names and fingerprints only, small however many products there are."""

import dataclasses
import hashlib
import json
import os
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

FORMAT = 1
MANIFEST = "manifest.json"
VOCABULARY = "vocab.txt"


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
    # Alignments that `align` made later: name -> fingerprint of their files. `fingerprint` is that of what prepare wrote, so
    # that shards stay the same shards whatever alignments come and go.
    aligned: dict[str, str] = field(default_factory=dict)

    def files(self) -> tuple[str, ...]:
        """Names of the files that prepare wrote, without the manifest, sorted."""
        endings = [".tar", ".idx", ".table.npy", *(f".alignment.{name}.npy" for name in self.alignments if name not in self.aligned)]
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

    def with_alignment(self, name: str, found: str) -> "Manifest":
        """The manifest that also names an alignment whose files have the fingerprint `found`."""
        names = (*(other for other in self.alignments if other != name), name)
        return replace(self, alignments=names, aligned=self.aligned | {name: found})

    def without_alignment(self, name: str) -> "Manifest":
        """The manifest without one of the alignments that `align` made."""
        if name not in self.aligned:
            return self
        return replace(self, alignments=tuple(other for other in self.alignments if other != name),
                       aligned={other: found for other, found in self.aligned.items() if other != name})

    def write(self, folder: Path) -> None:
        values = dataclasses.asdict(self)
        if not self.aligned:
            del values["aligned"]  # older versions do not know it
        (folder / MANIFEST).write_text(json.dumps(values, indent=1), encoding="utf-8")

    def write_over(self, folder: Path) -> None:
        """Replace the folder's manifest: a reader sees the old or the new one."""
        with tempfile.TemporaryDirectory(dir=folder, prefix=".manifest") as beside:
            self.write(Path(beside))
            os.replace(Path(beside) / MANIFEST, folder / MANIFEST)

    @staticmethod
    def read(folder: Path) -> "Manifest":
        """Read a folder's manifest.

        Raises:
            ValueError: there is none, it cannot be read, or it is of another format.
        """
        try:
            values = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ValueError(f"{folder}: no {MANIFEST} there; expected a folder written by 'kaleido-fast prepare'"
                             ) from None
        except ValueError as error:
            raise ValueError(f"{folder / MANIFEST}: not readable: {error}; run prepare again") from None
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            found = values.get("format") if isinstance(values, dict) else type(values).__name__
            raise ValueError(f"{folder / MANIFEST}: format {found}, this version reads {FORMAT}; run prepare again")
        try:
            return _from_json(values)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{folder / MANIFEST}: not a manifest of format {FORMAT} ({type(error).__name__}: {error}); "
                             "run prepare again") from None


def _from_json(values: dict[str, Any]) -> Manifest:
    splits = {
        name: SplitEntry(tuple(entry["shards"]), tuple(map(int, entry["samples"])), int(entry["products"]))
        for name, entry in values["splits"].items()
    }
    return Manifest(**values | {
        "vocabulary": Vocabulary(**values["vocabulary"]), "splits": splits,
        "categories": tuple(values["categories"]), "subcategories": tuple(values["subcategories"]),
        "alignments": tuple(values["alignments"]),
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
