"""What the plan may do: grids, tasks, budgets and the ids of the vocabulary (SPEC 3 and 6)."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from torch import Tensor

from kaleido_fast.kernels.geometry import GRIDS, num_positions, offset_of_grid

ROTATION_GRID, JIGSAW_GRID, CAMOUFLAGE_GRID, GREY_GRID = 1, 2, 3, 4
GROUP = 16  # consecutive stream positions; donors come from the sample's own group
MAX_TOKENS = 512  # of a text on a GPU: 16 a thread
ALIGNMENT_BITS = 64  # an alignment is one 64-bit mask a token
PERMUTATIONS = tuple(itertools.permutations(range(JIGSAW_GRID**2)))  # slot i shows patch perm[i]
NONE, IGNORED = -1, -100  # no row, slot or position; a label that no loss counts

Counts = TypeVar("Counts", int, np.ndarray, Tensor)


@dataclass(frozen=True, slots=True)
class PlanRules:
    """Which tasks run on which grids, how much they mask, and the ids that masking needs.

    Raises:
        ValueError: the grids, budgets or ids do not go together.
    """

    mask_id: int  # [MASK]
    ordinary_first: int  # ordinary ids, inclusive: all but special, [unused*] and padding rows (SPEC 4)
    ordinary_last: int
    grids: tuple[int, ...] = GRIDS
    rotation: bool = True
    jigsaw: bool = True
    camouflage: bool = True
    num_grey: int = 2  # slots greyed on grid 4; 0: task off
    num_blank: int = 3  # slots blanked on `blank_grid`; 0: task off
    blank_grid: int = 5  # 8 for the fixed-scale ablation
    max_masked_tokens: int = 10
    guided: bool = True  # False: random masking, step 2 of SPEC 6 alone

    def __post_init__(self) -> None:
        _check_grids(self.grids)
        _check_budgets(self)
        if not 0 <= self.ordinary_first <= self.ordinary_last or self.mask_id < 0:
            raise ValueError(
                f"plan: mask_id={self.mask_id} and ordinary ids {self.ordinary_first}..{self.ordinary_last}"
                " must be ids from 0 on, first <= last; take them from the shards' manifest"
            )

    @property
    def num_positions(self) -> int:
        """K, 55 for grids 1..5."""
        return num_positions(self.grids)

    @property
    def num_rows(self) -> int:
        """Patches a sample to encode, K + G (SPEC 2)."""
        return self.num_positions + self.num_grey

    @property
    def patch_budgets(self) -> dict[int, int]:
        """Slots to take on each grid whose task takes slots."""
        counts = (int(self.camouflage), self.num_grey, self.num_blank)
        budgets = zip((CAMOUFLAGE_GRID, GREY_GRID, self.blank_grid), counts)
        return {grid: count for grid, count in budgets if count}


def token_budget(maskable: Counts, max_masked_tokens: int) -> Counts:
    """Tokens to mask where `maskable` lie between [CLS] and [SEP]: 15 %, at least one (SPEC 6).

    Args:
        maskable: integers of any shape; the host's own or a tensor.
    Returns:
        The same kind; 0 where nothing is maskable, never above `max_masked_tokens`.
    """
    if isinstance(maskable, int):
        maskable = np.int64(maskable)
    return ((3 * maskable + 10) // 20).clip(1, max_masked_tokens) * (maskable > 0)


def _check_grids(grids: Sequence[int]) -> None:
    if any(grid < 1 for grid in grids) or len(set(grids)) != len(grids):
        raise ValueError(
            f"plan: grids={list(grids)} must be different numbers from 1 on; use [1, 2, 3, 4, 5] or [8]"
        )
    if num_positions(grids) > ALIGNMENT_BITS:
        raise ValueError(
            f"plan: grids={list(grids)} make {num_positions(grids)} positions, an alignment has"
            f" {ALIGNMENT_BITS} bits; take out a grid"
        )


def _check_budgets(rules: PlanRules) -> None:
    if rules.blank_grid <= GREY_GRID:
        raise ValueError(
            f"plan: blank_grid={rules.blank_grid} must be 5 or more, grids 1 to 4 are for the other tasks;"
            " use 5 or 8"
        )
    if rules.max_masked_tokens < 0:
        raise ValueError(f"plan: max_masked_tokens={rules.max_masked_tokens} must be 0 (mask none) or more")
    slots = (("num_grey", rules.num_grey, GREY_GRID), ("num_blank", rules.num_blank, rules.blank_grid))
    for name, count, grid in slots:
        if not 0 <= count <= grid * grid:
            raise ValueError(
                f"plan: {name}={count} must lie in 0..{grid * grid}, the slots of grid {grid}; 0 switches it"
                " off"
            )
    whole_levels = ((ROTATION_GRID, rules.rotation), (JIGSAW_GRID, rules.jigsaw))
    for grid in (*(grid for grid, on in whole_levels if on), *rules.patch_budgets):
        offset_of_grid(rules.grids, grid)  # raises where the task's level is missing
