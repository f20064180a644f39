"""data check: a part of one shard with stored features: its store, records, plan and table, row by row."""

import functools
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from kaleido_fast.authors.feature_samples import open_store
from kaleido_fast.authors.plan_file import plan_dtype, plausible_plans
from kaleido_fast.data.check.row import Finding, RowCheck, ids_behind, open_array, parse_record
from kaleido_fast.data.check.shard import Part, manifest_of
from kaleido_fast.data.shards.manifest import Manifest
from kaleido_fast.data.shards.split import table_dtype
from kaleido_fast.data.store.feature_store import ENDING, FeatureStore
from kaleido_fast.data.store.row_format import unpack_rows
from kaleido_fast.kernels.geometry import num_positions


@dataclass(frozen=True, slots=True)
class StoredFiles:
    """One shard, opened; None where a file cannot be read, which is a finding of its own."""

    name: str
    table: np.ndarray
    store: FeatureStore | None
    records: bytes | None
    plans: np.ndarray | None


class StoredRowCheck(RowCheck):
    """Checks rows of one split; the tokens have masks in them, so they are not compared with the text."""

    def _problems(self, shard: StoredFiles, place: int, sample: int, row: np.void) -> Iterator[tuple[str, str]]:
        """(ending of the file, what) pairs."""
        odd = self.odd_columns(row) or [what for what in [self.odd_ids(row["tokens"])] if what]
        if odd:
            yield from ((".table.npy", what) for what in odd)
            return
        if shard.records is not None:
            yield from self._record_findings(shard, place, row)
        yield from ((".table.npy", what) for what in ids_behind(row))
        if shard.plans is not None:
            tokens = np.array([row["num_tokens"] + 2])
            if not plausible_plans(shard.plans[place : place + 1], tokens, self._manifest.vocabulary.size)[0]:
                yield ".plan.npy", f"row {place} holds numbers that cannot be: {shard.plans[place]}"
        if shard.store is not None:
            yield from ((ENDING, what) for what in _block_problems(shard.store, place))

    def _record_findings(self, shard: StoredFiles, place: int, row: np.void) -> Iterator[tuple[str, str]]:
        offset, length = int(row["offset"]), int(row["length"])
        data = shard.records[offset : offset + length]
        before = shard.table[place - 1] if place else None
        expected = int(before["offset"]) + int(before["length"]) + 1 if place else 0
        if offset != expected:
            yield ".table.npy", f"offset {offset:,}, expected {expected:,} behind the record before"
        if zlib.crc32(data) != row["crc"]:
            yield ".jsonl", f"CRC32 {zlib.crc32(data):#010x} of {len(data):,} bytes at byte {offset:,}, expected " \
                            f"{row['crc']:#010x} of {length:,}"
            return
        record = parse_record(data, offset)
        if isinstance(record, str):
            yield ".jsonl", record
        else:
            yield from ((".table.npy", what) for what in self.record_problems(row, record))

    def token_problems(self, row: np.void, text: str) -> Iterator[str]:
        """None: the ids have masks in them."""
        return iter(())


def check_stored_part(part: Part) -> list[Finding]:
    """All findings of the part's rows; the first part's list begins with those of the shard's files."""
    manifest = manifest_of(part.folder, part.stamp)
    findings: list[Finding] = []
    files = _open(part, manifest, findings)
    if part.start:
        findings = []  # the first part has said it
    if files is None:
        return findings
    check = _row_check(part.folder, part.split, part.stamp)
    for place in range(part.start, part.stop):
        findings += check.findings(files, place, part.first + place)
    return findings


@functools.lru_cache(maxsize=3)
def _row_check(folder: Path, split: str, stamp: int) -> StoredRowCheck:
    manifest = manifest_of(folder, stamp)
    products = open_array(folder, f"{split}.products.npy", None, (manifest.splits[split].products,), [])
    return StoredRowCheck(manifest, split, products, None)


def _open(part: Part, manifest: Manifest, findings: list[Finding]) -> StoredFiles | None:
    """The shard's files; None where rows cannot be looked at, which is a finding (a missing file: told elsewhere)."""
    folder, name, count = part.folder, part.shard, part.samples
    table = open_array(folder, f"{name}.table.npy", table_dtype(manifest.token_width), (count,), findings)
    open_array(folder, f"{name}.locations.npy", np.dtype("<i4"), (count, num_positions(), 5), findings)
    plans = open_array(folder, f"{name}.plan.npy", plan_dtype(), (count,), findings) if manifest.features.has_plan else None
    store = records = None
    try:
        store = open_store(folder, name, count, manifest.features)
    except ValueError as error:
        if (folder / f"{name}{ENDING}").exists():
            findings.append(Finding(f"{name}{ENDING}", str(error).removeprefix(f"{folder / (name + ENDING)}: ")))
    try:
        records = (folder / f"{name}.jsonl").read_bytes()
        _check_end(f"{name}.jsonl", records, table, findings)
    except FileNotFoundError:
        pass
    except OSError as error:
        findings.append(Finding(f"{name}.jsonl", f"cannot be read: {error.strerror}"))
    return None if table is None else StoredFiles(name, table, store, records, plans)


def _check_end(file: str, records: bytes, table: np.ndarray | None, findings: list[Finding]) -> None:
    """The last record ends the file."""
    end = int(table["offset"][-1]) + int(table["length"][-1]) + 1 if table is not None and len(table) else len(records)
    if len(records) != end:
        findings.append(Finding(file, f"{len(records):,} bytes, expected {end:,} by the table"))


def _block_problems(store: FeatureStore, place: int) -> Iterator[str]:
    """The block is what was written, and its features are numbers."""
    block = np.empty(store.header.block_bytes, np.uint8)
    if not store.copy(place, block):
        yield f"CRC32 of block {place} is {zlib.crc32(block):#010x}, expected {store.crc(place):#010x}"
    elif not unpack_rows(torch.from_numpy(block).reshape(store.header.rows, -1), store.header.dtype).isfinite().all():
        yield f"block {place} has features that are not finite"
