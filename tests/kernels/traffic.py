"""Counts what a kernel asks of memory: distinct 32-byte sectors of each program, summed over programs.

A sector is what a GPU moves between its level-2 cache and an SM; inside one program repeats are taken for hits of
the level-1 cache, between programs they are not.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from tests.kernels.accesses import ATOMIC, READ, WRITE, Program, observed, span

SECTOR = 32
ELSEWHERE = "elsewhere"  # addresses outside every tensor of the launch


@dataclass
class Launch:
    """One launch's bytes by parameter name; a tensor given twice counts under its first name."""

    kernel: str
    tensors: dict[str, Tensor]  # kept alive, so that no later tensor gets their addresses
    reads: Counter[str] = field(default_factory=Counter)
    writes: Counter[str] = field(default_factory=Counter)


class Traffic:
    """What was recorded, launch by launch and in all."""

    def __init__(self) -> None:
        self.launches: list[Launch] = []
        self._program: Program | None = None
        self._sectors: dict[str, list[np.ndarray]] = {READ: [], WRITE: []}

    @property
    def reads(self) -> Counter[str]:
        """Bytes read by parameter name, all launches together."""
        return sum((launch.reads for launch in self.launches), Counter())

    @property
    def writes(self) -> Counter[str]:
        """Bytes written by parameter name, all launches together; an atomic counts as read and as written."""
        return sum((launch.writes for launch in self.launches), Counter())

    def launched(self, kernel: str, tensors: dict[str, Tensor]) -> None:
        self.finish_program()
        self.launches.append(Launch(kernel, tensors))

    def accessed(self, kind: str, program: Program, addresses: np.ndarray, size: int) -> None:
        if program != self._program:
            self.finish_program()
            self._program = program
        ends = np.concatenate([addresses, addresses + np.uint64(size - 1)])
        sectors = np.unique(ends // np.uint64(SECTOR))
        for side in (READ, WRITE) if kind == ATOMIC else (kind,):
            self._sectors[side].append(sectors)

    def finish_program(self) -> None:
        """Count what the last program touched."""
        for side, parts in self._sectors.items():
            if parts:
                launch = self.launches[-1]
                bytes_of = launch.reads if side == READ else launch.writes
                _count(np.unique(np.concatenate(parts)), launch.tensors, bytes_of)
                parts.clear()
        self._program = None


@contextmanager
def recorded() -> Iterator[Traffic]:
    """`with recorded() as traffic: kernel[grid](...)`, then `traffic.reads["x_ptr"]` in bytes."""
    traffic = Traffic()
    with observed(traffic):
        yield traffic
    traffic.finish_program()


def _count(sectors: np.ndarray, tensors: dict[str, Tensor], bytes_of: Counter[str]) -> None:
    for name, tensor in tensors.items():
        start, end = span(tensor)
        inside = (sectors >= start // SECTOR) & (sectors < -(-end // SECTOR))
        bytes_of[name] += SECTOR * int(inside.sum())
        sectors = sectors[~inside]
    if len(sectors):
        bytes_of[ELSEWHERE] += SECTOR * len(sectors)
