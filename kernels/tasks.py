"""What a kaleido task is to the operators: an effect on one level's patches (SPEC 3).

    effect    what the level shows                              label                     slots
    turn      every patch turned in place by k quarter turns    k, 4 classes              none
    permute   slot i the patch of slot perm[i]                  index of perm, 24         none
    swap      one slot a patch of another product               the slot, n * n classes   1
    grey      `num_slots` slots their luma                      none                      num_slots
    blank     `num_slots` slots nothing                         none                      num_slots

A level has one task at the most, so a task is known by its grid. Slots are the row-major numbers of patches in their level.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from kaleido_fast.kernels.philox import TEXT_DRAW

Effect = Literal["turn", "permute", "swap", "grey", "blank"]
EFFECTS: tuple[Effect, ...] = get_args(Effect)
NUM_TURNS = 4  # counter-clockwise quarter turns
PERMUTED_GRID = 2  # a level of 9 patches has 362,880 permutations
PERMUTATIONS = tuple(itertools.permutations(range(PERMUTED_GRID**2)))  # lexicographic; slot i shows patch perm[i]


@dataclass(frozen=True, slots=True)
class TaskRule:
    """One task: its level, what it does there, and how many slots it takes.

    Raises:
        ValueError: an effect, a grid, a number of slots or a draw that means nothing.
    """

    grid: int  # the level is grid x grid patches
    effect: Effect
    num_slots: int = 0  # slots it takes of each sample: 0 for a turn and a permutation, 1 for a swap
    draw: int = 0  # index of its words in the sample's stream; a grey or blank task draws none

    def __post_init__(self) -> None:
        if self.effect not in EFFECTS:
            raise ValueError(f"task: effect={self.effect!r} must be one of {', '.join(EFFECTS)}")
        if self.grid < 1:
            raise ValueError(f"task: grid={self.grid} must be 1 or more")
        if self.effect == "permute" and self.grid != PERMUTED_GRID:
            raise ValueError(f"task: a permutation of grid {self.grid} must be of grid {PERMUTED_GRID}, whose "
                             f"{len(PERMUTATIONS)} permutations can be told apart")
        if self.effect == "swap" and self.grid < 2:
            raise ValueError(
                f"task: a swap on grid {self.grid} must be on grid 2 or more: of one slot there is nothing to find")
        least, most = {"turn": (0, 0), "permute": (0, 0), "swap": (1, 1)}.get(self.effect, (1, self.grid**2))
        if not least <= self.num_slots <= most:
            allowed = f"{least}..{most}" if least < most else str(least)
            raise ValueError(f"task: {self.effect} on grid {self.grid} takes {self.num_slots} slots, must take {allowed}")
        if self.draw < 0 or self.draw == TEXT_DRAW:
            raise ValueError(f"task: draw={self.draw} must be 0 or from 2 on; {TEXT_DRAW} is the text's")

    @property
    def num_classes(self) -> int:
        """Of its label; 0 where the slots' clean patches are to be predicted."""
        return {"turn": NUM_TURNS, "permute": len(PERMUTATIONS), "swap": self.grid**2}.get(self.effect, 0)

    @property
    def num_greyed(self) -> int:
        """Patches that it adds to those a sample has to encode."""
        return self.num_slots if self.effect == "grey" else 0


def first_slots(tasks: Sequence[TaskRule]) -> tuple[int, ...]:
    """The column of a plan's slots at which each task's begin."""
    return tuple(itertools.accumulate((task.num_slots for task in tasks[:-1]), initial=0))[: len(tasks)]


def total_greyed(tasks: Sequence[TaskRule]) -> int:
    """G, greyed patches a sample."""
    return sum(task.num_greyed for task in tasks)


def task_of_grid(tasks: Sequence[TaskRule], grid: int) -> TaskRule | None:
    """The task on a level; None where it stays clean."""
    return next((task for task in tasks if task.grid == grid), None)


def as_lists(tasks: Sequence[TaskRule]) -> tuple[list[int], list[int], list[int], list[int]]:
    """Grids, effects, numbers of slots and draws, as an operator's schema can take them."""
    return (
        [task.grid for task in tasks], [EFFECTS.index(task.effect) for task in tasks], [task.num_slots for task in tasks],
        [task.draw for task in tasks],
    )


def from_lists(
    grids: Sequence[int], effects: Sequence[int], nums_slots: Sequence[int], draws: Sequence[int]
) -> tuple[TaskRule, ...]:
    """The tasks of `as_lists`."""
    columns = zip(grids, effects, nums_slots, draws, strict=True)
    return tuple(TaskRule(grid, EFFECTS[effect], num_slots, draw) for grid, effect, num_slots, draw in columns)
