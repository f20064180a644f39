"""data check: a shard of photographs: its table, index, alignments and tar, and its rows (photograph.py)."""

import functools
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from kaleido_fast.data.check.finding import Finding, open_array
from kaleido_fast.data.check.part import ShardPart, ShardPartCheck
from kaleido_fast.data.check.photograph import PhotographShard, photograph_problems
from kaleido_fast.data.check.row import Problem, RowRules
from kaleido_fast.data.check.tables import check_vocabulary
from kaleido_fast.data.shards.manifest import VOCABULARY
from kaleido_fast.data.shards.split import table_dtype
from kaleido_fast.data.shards.tar import BLOCK, END, next_offset, read_header, whole_blocks
from kaleido_fast.data.shards.tokenizer import Tokenizer

UNREADABLE = "of none of its rows the photographs could be looked at"


class PhotographPartCheck(ShardPartCheck[PhotographShard]):
    """Checks parts of a folder's shards of photographs."""

    @functools.cached_property
    def _tokenizer(self) -> Tokenizer | None:
        """None where the vocabulary is not the manifest's."""
        is_whole = not check_vocabulary(self._folder, self._manifest)
        return Tokenizer.from_vocab(self._folder / VOCABULARY) if is_whole else None

    def _open(self, part: ShardPart, findings: list[Finding]) -> PhotographShard | None:
        folder, name, count, width = self._folder, part.shard, part.samples, self._manifest.token_width
        table = open_array(folder, f"{name}.table.npy", table_dtype(width), (count,), findings)
        index = _index(folder, f"{name}.idx", count, findings)
        masks = {}
        for alignment in self._manifest.alignments:
            array = open_array(folder, f"{name}.alignment.{alignment}.npy", np.dtype(np.int64), (count, width), findings)
            if array is not None:
                masks[alignment] = array
        fields = None
        if self._manifest.fields:
            shape = (count, len(self._manifest.fields), 2)
            fields = open_array(folder, f"{name}.fields.npy", np.dtype(np.int16), shape, findings)
        if table is None:
            return None
        try:
            shard = PhotographShard(name, os.open(folder / f"{name}.tar", os.O_RDONLY), table, index, masks, fields)
        except FileNotFoundError:
            return None
        except OSError as error:
            findings.append(Finding(f"{name}.tar", f"cannot be read: {error.strerror}; {UNREADABLE}"))
            return None
        if not part.start:
            findings += _end(shard)
        return shard

    def _problems(self, rules: RowRules, shard: PhotographShard, place: int, sample: int) -> Iterator[Problem]:
        return photograph_problems(rules, self._tokenizer, shard, place, sample)


def _index(folder: Path, file: str, samples: int, findings: list[Finding]) -> list[str] | None:
    """The lines of a shard's index behind the first."""
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


def _end(shard: PhotographShard) -> list[Finding]:
    """The tar ends with two empty blocks behind the last record, where its table says."""
    size = os.fstat(shard.tar).st_size
    if not len(shard.table):
        return []
    record_offset = next_offset(int(shard.table["offset"][-1]), int(shard.table["length"][-1]))
    try:
        header = read_header(shard.tar, record_offset if record_offset < 1 << 62 else 0)
    except ValueError:
        return [Finding(f"{shard.name}.tar", f"{size:,} bytes; the last record should begin at byte {record_offset:,}")]
    end = record_offset + whole_blocks(header.size)
    if size == end + len(END) and not any(os.pread(shard.tar, len(END), end)):
        return []
    return [Finding(f"{shard.name}.tar", f"{size:,} bytes, expected {end + 2 * BLOCK:,} with two empty blocks at the end")]
