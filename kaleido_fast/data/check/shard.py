"""data check: a part of one shard's rows, in a worker process; with the first part what the shard's files are as a whole."""

import functools
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kaleido_fast.data.check.row import BLOCK, Finding, RowCheck, ShardFiles, open_array, read_member
from kaleido_fast.data.check.tables import check_vocabulary
from kaleido_fast.data.shards.manifest import VOCABULARY, Manifest
from kaleido_fast.data.shards.split import table_dtype
from kaleido_fast.data.shards.tokenizer import Tokenizer

UNREADABLE = "of none of its rows the photographs could be looked at"


@dataclass(frozen=True, slots=True)
class Part:
    """Rows start..stop - 1 of a shard."""

    folder: Path
    split: str
    shard: str
    samples: int  # of the shard, by the manifest
    first: int  # number of the shard's first sample in its split
    start: int
    stop: int
    stamp: int  # of this check: what a worker process keeps belongs to it


def check_part(part: Part) -> list[Finding]:
    """All findings of the part's rows; the first part's list begins with those of the shard's files."""
    manifest = manifest_of(part.folder, part.stamp)
    findings: list[Finding] = []
    files = _open(part, manifest, findings)
    if part.start:
        findings = []  # the first part has said it
    if files is None:
        return findings
    try:
        if not part.start:
            findings += _end(files)
        check = _row_check(part.folder, part.split, part.stamp)
        for place in range(part.start, part.stop):
            findings += check.findings(files, place, part.first + place)
        return findings
    finally:
        os.close(files.tar)


@functools.lru_cache(maxsize=1)
def manifest_of(folder: Path, stamp: int) -> Manifest:
    """The folder's manifest, read once a check."""
    return Manifest.read(folder)


@functools.lru_cache(maxsize=3)
def _row_check(folder: Path, split: str, stamp: int) -> RowCheck:
    manifest = manifest_of(folder, stamp)
    products = open_array(folder, f"{split}.products.npy", None, (manifest.splits[split].products,), [])
    whole = not check_vocabulary(folder, manifest)
    return RowCheck(manifest, split, products, Tokenizer.from_vocab(folder / VOCABULARY) if whole else None)


def _open(part: Part, manifest: Manifest, findings: list[Finding]) -> ShardFiles | None:
    """The shard's files; None where rows cannot be looked at, which is a finding (a missing file: told elsewhere)."""
    folder, name, count = part.folder, part.shard, part.samples
    table = open_array(folder, f"{name}.table.npy", table_dtype(manifest.token_width), (count,), findings)
    index = _index(folder, f"{name}.idx", count, findings)
    masks = {}
    for alignment in manifest.alignments:
        file = f"{name}.alignment.{alignment}.npy"
        array = open_array(folder, file, np.dtype(np.int64), (count, manifest.token_width), findings)
        if array is not None:
            masks[alignment] = array
    if table is None:
        return None
    try:
        return ShardFiles(name, os.open(folder / f"{name}.tar", os.O_RDONLY), table, index, masks)
    except FileNotFoundError:
        return None
    except OSError as error:
        findings.append(Finding(f"{name}.tar", f"cannot be read: {error.strerror}; {UNREADABLE}"))
        return None


def _index(folder: Path, file: str, samples: int, findings: list[Finding]) -> list[str] | None:
    try:
        version, *lines = (folder / file).read_text(encoding="utf-8").splitlines() or [""]
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        findings.append(Finding(file, f"cannot be read: {error}"))
        return None
    if version != f"v1.2 {samples}" or len(lines) != samples:
        findings.append(Finding(file, f"'{version[:40]}' and {len(lines)} lines, expected 'v1.2 {samples}' and {samples}"))
        return None
    return lines


def _end(files: ShardFiles) -> list[Finding]:
    """The tar ends with two empty blocks behind the last record, where its table says."""
    size = os.fstat(files.tar).st_size
    if not len(files.table):
        return []
    offset, length = int(files.table["offset"][-1]), int(files.table["length"][-1])
    behind = offset + -(-length // BLOCK) * BLOCK + BLOCK
    member = read_member(files.tar, behind) if 0 < behind < 1 << 62 else "no member"
    if isinstance(member, str):
        return [Finding(f"{files.name}.tar", f"{size:,} bytes; the last record should begin at byte {behind:,}")]
    end = behind + -(-member.size // BLOCK) * BLOCK
    if size == end + 2 * BLOCK and not any(os.pread(files.tar, 2 * BLOCK, end)):
        return []
    return [Finding(f"{files.name}.tar", f"{size:,} bytes, expected {end + 2 * BLOCK:,} with two empty blocks at the end")]
