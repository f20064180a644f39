"""data check: a part of one shard, in a worker process; with the first part what the shard's files are as a whole.

What a row must be, a kind of shard says: photographs in shard.py, stored features in authors/check_shard.py.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np

from kaleido_fast.data.check.finding import Finding
from kaleido_fast.data.check.row import Problem, RowRules
from kaleido_fast.data.shards.manifest import Manifest


@dataclass(frozen=True, slots=True)
class ShardPart:
    """Rows start..stop - 1 of a shard."""

    split: str
    shard: str
    samples: int  # of the shard, by the manifest
    first: int  # number of the shard's first sample in its split
    start: int
    stop: int


PartCheck = Callable[[ShardPart], list[Finding]]


class OpenedShard(Protocol):
    """The files of one shard."""

    @property
    def name(self) -> str:
        """As the manifest has it."""

    @property
    def table(self) -> np.ndarray:
        """Its rows."""

    def close(self) -> None:
        """No row is looked at any more."""


Opened = TypeVar("Opened", bound=OpenedShard)


class ShardPartCheck(ABC, Generic[Opened]):
    """Checks parts of a folder's shards, as `check_folder` asks for it; what it has opened serves all parts."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._manifest = folder, Manifest.read(folder)
        self._rules = {name: RowRules(folder, name, self._manifest) for name in self._manifest.splits}

    def __call__(self, part: ShardPart) -> list[Finding]:
        """All findings of the part's rows; the first part's list begins with those of the shard's files."""
        findings: list[Finding] = []
        shard = self._open(part, findings)
        if part.start:
            findings = []  # those of the files are the first part's
        if shard is None:
            return findings
        rules = self._rules[part.split]
        with closing(shard):
            for place in range(part.start, part.stop):
                sample = part.first + place
                problems = self._problems(rules, shard, place, sample)
                findings += rules.findings(shard.name, sample, shard.table[place], problems)
        return findings

    @abstractmethod
    def _open(self, part: ShardPart, findings: list[Finding]) -> Opened | None:
        """The shard's files, with what is wrong with them as a whole added to `findings`.

        Returns:
            None where rows cannot be looked at, which is a finding; a missing file is told by `check_folder`.
        """

    @abstractmethod
    def _problems(self, rules: RowRules, shard: Opened, place: int, sample: int) -> Iterator[Problem]:
        """What is wrong with row `place` of a shard, which is number `sample` of its split."""
