"""What the plan may do: grids, tasks, budgets and the ids of the vocabulary (SPEC 3 and 6)."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from torch import Tensor

from kaleido_fast.kernels.geometry import GRIDS, num_positions, offset_of_grid
from kaleido_fast.kernels.tasks import TaskRule, total_greyed

GROUP = 16  # consecutive stream positions; donors come from the sample's own group
MAX_TOKENS = 512  # of a text on a GPU: 16 a thread
ALIGNMENT_BITS = 64  # an alignment is one 64-bit mask a token
NONE, IGNORED = -1, -100  # no row, slot or position; a label that no loss counts

Counts = TypeVar("Counts", int, np.ndarray, Tensor)


@dataclass(frozen=True, slots=True)
class PlanRules:
    """Which tasks run on which grids, how much they mask, and the ids that masking needs.

    Raises:
        ValueError: the grids, tasks, budgets or ids do not go together.
    """

    mask_id: int  # [MASK]
    ordinary_first: int  # ordinary ids, inclusive: all but special, [unused*] and padding rows (SPEC 4)
    ordinary_last: int
    tasks: tuple[TaskRule, ...]  # a column each of a plan's labels, in this order
    grids: tuple[int, ...] = GRIDS
    max_masked_tokens: int = 10
    guided: bool = True  # False: random masking, step 2 of SPEC 6 alone

    def __post_init__(self) -> None:
        _check_grids(self.grids)
        check_tasks(self.tasks, self.grids)
        if self.max_masked_tokens < 0:
            raise ValueError(f"max_masked_tokens={self.max_masked_tokens} must be 0 (mask none) or more")
        if not 0 <= self.ordinary_first <= self.ordinary_last or self.mask_id < 0:
            raise ValueError(
                f"mask_id={self.mask_id} and ordinary ids {self.ordinary_first}..{self.ordinary_last}"
                " must be ids from 0 on, first <= last; take them from the shards' manifest"
            )

    @property
    def num_positions(self) -> int:
        """K, 55 for grids 1..5."""
        return num_positions(self.grids)

    @property
    def num_rows(self) -> int:
        """Patches a sample to encode, K + G (SPEC 2)."""
        return self.num_positions + total_greyed(self.tasks)


def token_budget(maskable: Counts, max_masked_tokens: int) -> Counts:
    """Tokens to mask where `maskable` lie between [CLS] and [SEP]: 15 %, at least one (SPEC 6).

    Args:
        maskable: integers of any shape; the host's own or a tensor.
    Returns:
        The same kind; 0 where nothing is maskable, never above `max_masked_tokens`.
    """
    if isinstance(maskable, int):
        return min(max((3 * maskable + 10) // 20, 1), max_masked_tokens) * (maskable > 0)
    return ((3 * maskable + 10) // 20).clip(1, max_masked_tokens) * (maskable > 0)


def check_tasks(tasks: Sequence[TaskRule], grids: Sequence[int]) -> None:
    """Refuse tasks that cannot be drawn together.

    Raises:
        ValueError: a level that is not there or has two tasks, or two tasks that draw the same word.
    """
    for task in tasks:
        offset_of_grid(grids, task.grid)  # raises where the task's level is missing
    for one, other in itertools.combinations(tasks, 2):
        if one.grid == other.grid:
            raise ValueError(
                f"tasks: {one.effect} and {other.effect} both change the level of grid {one.grid}; a level has one"
                " task: take one out"
            )
        if one.effect == other.effect and one.num_classes and one.draw == other.draw:
            raise ValueError(
                f"tasks: {one.effect} on grid {one.grid} and on grid {other.grid} both have draw={one.draw}; give"
                " each its own"
            )


def _check_grids(grids: Sequence[int]) -> None:
    if any(grid < 1 for grid in grids) or len(set(grids)) != len(grids):
        raise ValueError(
            f"grids={list(grids)} must be different numbers from 1 on; use [1, 2, 3, 4, 5] or [8]"
        )
    if num_positions(grids) > ALIGNMENT_BITS:
        raise ValueError(
            f"grids={list(grids)} make {num_positions(grids)} positions, an alignment has"
            f" {ALIGNMENT_BITS} bits; take out a grid"
        )
