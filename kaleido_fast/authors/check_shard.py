"""data check: a shard with stored features: its store, records, plan and table, row by row."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from kaleido_fast.authors.feature_samples import open_shard_features
from kaleido_fast.authors.plan_file import plan_dtype, plausible_plans
from kaleido_fast.data.check.finding import Finding, open_array
from kaleido_fast.data.check.part import ShardPart, ShardPartCheck
from kaleido_fast.data.check.row import Problem, RowRules, ids_behind, parse_record
from kaleido_fast.data.shards.split import table_dtype
from kaleido_fast.data.store.feature_store import ENDING, FeatureStore
from kaleido_fast.data.store.row_format import unpack_rows
from kaleido_fast.kernels.geometry import num_positions


@dataclass(frozen=True, slots=True)
class FeatureShard:
    """One shard, opened; None where a file cannot be read, which is a finding of its own."""

    name: str
    table: np.ndarray
    store: FeatureStore | None
    records: bytes | None
    plans: np.ndarray | None

    def close(self) -> None:
        """Nothing is held open: its files are mapped or read."""


class FeaturePartCheck(ShardPartCheck[FeatureShard]):
    """Checks parts of a folder's shards with stored features."""

    def _open(self, part: ShardPart, findings: list[Finding]) -> FeatureShard | None:
        folder, name, count, features = self._folder, part.shard, part.samples, self._manifest.features
        assert features is not None  # parts of photographs are checked elsewhere
        table = open_array(folder, f"{name}.table.npy", table_dtype(self._manifest.token_width), (count,), findings)
        open_array(folder, f"{name}.locations.npy", np.dtype("<i4"), (count, num_positions(), 5), findings)
        plans = open_array(folder, f"{name}.plan.npy", plan_dtype(), (count,), findings) if features.has_plan else None
        store = records = None
        try:
            store = open_shard_features(folder, name, count, features)
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
        return None if table is None else FeatureShard(name, table, store, records, plans)

    def _problems(self, rules: RowRules, shard: FeatureShard, place: int, sample: int) -> Iterator[Problem]:
        """As the base class; a row's tokens have masks in them, so they are not compared with the text."""
        return feature_problems(rules, shard, place)


def feature_problems(rules: RowRules, shard: FeatureShard, place: int) -> Iterator[Problem]:
    """What is wrong with row `place` of a shard."""
    row = shard.table[place]
    odd = rules.odd_columns(row) or [what for what in [rules.odd_ids(row["tokens"])] if what]
    if odd:
        yield from ((".table.npy", what) for what in odd)
        return
    if shard.records is not None:
        yield from _record_problems(rules, shard.table, shard.records, place)
    yield from ((".table.npy", what) for what in ids_behind(row))
    if shard.plans is not None:
        tokens = np.array([row["num_tokens"] + 2])
        if not plausible_plans(shard.plans[place : place + 1], tokens, rules.manifest.vocabulary.size)[0]:
            yield ".plan.npy", f"row {place} holds numbers that cannot be: {shard.plans[place]}"
    if shard.store is not None:
        yield from ((ENDING, what) for what in _block_problems(shard.store, place))


def _record_problems(rules: RowRules, table: np.ndarray, records: bytes, place: int) -> Iterator[Problem]:
    """The record lies behind the one before, is what was written, and says what the row says."""
    row, before = table[place], table[place - 1]
    offset, length = int(row["offset"]), int(row["length"])
    data = records[offset : offset + length]
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
        yield from ((".table.npy", what) for what in rules.record_problems(row, record))


def _check_end(file: str, records: bytes, table: np.ndarray | None, findings: list[Finding]) -> None:
    """The last record ends the file."""
    end = int(table["offset"][-1]) + int(table["length"][-1]) + 1 if table is not None and len(table) else len(records)
    if len(records) != end:
        findings.append(Finding(file, f"{len(records):,} bytes, expected {end:,} by the table"))


def _block_problems(store: FeatureStore, place: int) -> Iterator[str]:
    """The block is what was written, and its features are numbers."""
    block = np.empty(store.header.block_bytes, np.uint8)
    if not store.copy(place, block):
        yield f"CRC32 of block {place} is {zlib.crc32(block.data):#010x}, expected {store.crc(place):#010x}"
    elif not unpack_rows(torch.from_numpy(block).reshape(store.header.rows, -1), store.header.dtype).isfinite().all():
        yield f"block {place} has features that are not finite"
