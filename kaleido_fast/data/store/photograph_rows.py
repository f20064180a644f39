"""Which rows a feature store has of a photograph, and which of them a sample reads (SPEC 2 'Stored rows' and 'Rows').

    rows      of the paper's tasks   hold
    K         0..54                  the clean positions
    3         55..57                 the patch of grid 1, turned by 1, 2, 3 quarter turns, where a task turns it
    n * n     58..73                 all slots of grid n in grey, for each task that greys some of them

The plan is drawn on the device; so the host uploads all rows of a sample, packed, and the step takes those it reads.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kaleido_fast.data.store.row_format import StoreDtype, unpack_rows
from kaleido_fast.kernels.geometry import num_positions, offset_of_grid
from kaleido_fast.kernels.plan_outputs import Plan
from kaleido_fast.kernels.source import unturned_positions
from kaleido_fast.kernels.tasks import NUM_TURNS, TaskRule, first_slots

TURNED_GRID = 1  # the turns of a finer level would be three times its patches
TURNS = tuple(range(1, NUM_TURNS))
WIDE = 4  # bytes that an int32 copies at once


@dataclass(frozen=True, slots=True)
class PhotographRows:
    """Which rows there are, in this order."""

    grids: tuple[int, ...]  # whose positions are there, clean
    turned: bool  # the patch of grid 1, by each number of quarter turns
    greyed: tuple[int, ...]  # grids whose slots are there in grey

    @classmethod
    def of_tasks(cls, grids: tuple[int, ...], tasks: Sequence[TaskRule]) -> "PhotographRows":
        """What tasks read; of those whose level is not among the grids nothing."""
        possible = [task for task in tasks if task.grid in grids]
        turned = any(task.effect == "turn" and task.grid == TURNED_GRID for task in possible)
        return cls(grids, turned, tuple(dict.fromkeys(task.grid for task in possible if task.effect == "grey")))

    @property
    def num_rows(self) -> int:
        """R, 74 for the paper's."""
        return self._first_grey + sum(grid**2 for grid in self.greyed)

    @property
    def _first_grey(self) -> int:
        return num_positions(self.grids) + len(TURNS) * self.turned

    def cover(self, task: TaskRule) -> bool:
        """Whether all that a task may show is there."""
        if task.effect == "turn":
            return self.turned and task.grid == TURNED_GRID
        return task.effect != "grey" or task.grid in self.greyed

    def read(self, packed: Tensor, dtype: StoreDtype, plan: Plan) -> Tensor:
        """(B, K + G, F) fp32: the rows of SPEC 2 'Rows' under a plan, on the device.

        Args:
            packed: (B, R, row_bytes) uint8 (row_format.py).
        """
        return _unpacked(packed, dtype, self.read_by(plan))

    def read_unturned(self, packed: Tensor, dtype: StoreDtype, tasks: Sequence[TaskRule]) -> Tensor:
        """(B, U, F) fp32: the clean patches of the levels that `tasks` turn; arguments as of `read`."""
        return _unpacked(packed, dtype, unturned_positions(self.grids, tasks, packed.device).repeat(len(packed), 1))

    def read_by(self, plan: Plan) -> Tensor:
        """(B, K + G) int64: the stored row of each row to encode.

        Raises:
            ValueError: the store does not cover a task.
        """
        for task in plan.tasks:
            if not self.cover(task):
                advice = ", or encode the photographs with that task" if task.effect == "grey" else ""
                raise ValueError(f"feature store: no rows of {task.effect} on grid {task.grid}; compute the features{advice}")
        positions = num_positions(self.grids)
        rows = torch.arange(positions, device=plan.source.device).repeat(len(plan.source), 1)
        greyed = []
        for column, (task, first) in enumerate(zip(plan.tasks, first_slots(plan.tasks), strict=True)):
            if task.effect == "turn":
                place, turns = offset_of_grid(self.grids, task.grid), plan.labels[:, column].long()
                rows[:, place] = torch.where(turns > 0, positions + turns - 1, place)
            if task.effect == "grey":
                before = sum(grid**2 for grid in self.greyed[: self.greyed.index(task.grid)])
                slots = plan.slots[:, first : first + task.num_slots]
                greyed.append(self._first_grey + before + slots.long().clamp(min=0))
        return torch.cat([rows, *greyed], dim=1)


def _unpacked(packed: Tensor, dtype: StoreDtype, rows: Tensor) -> Tensor:
    """(B, n, F) fp32 of (B, n) int64 numbers of stored rows."""
    first = torch.arange(len(rows), device=rows.device)[:, None] * packed.shape[1]
    flat = packed.flatten(0, 1)
    wide = flat.view(torch.int32) if flat.shape[1] % WIDE == 0 else flat
    taken = wide.index_select(0, (first + rows).flatten()).view(torch.uint8)
    return unpack_rows(taken.unflatten(0, tuple(rows.shape)), dtype)
