"""Tasks, labels and slots that every implementation of cut is tested with."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kaleido_fast.kernels.geometry import GRIDS
from kaleido_fast.kernels.tasks import TaskRule

# A turn and two greys on other grids than the paper's, their columns behind those of tasks that need no pixel.
OTHERS = (TaskRule(2, "turn"), TaskRule(3, "grey", 2), TaskRule(5, "blank", 3), TaskRule(4, "swap", 1), TaskRule(1, "grey", 1))

# Samples, S, P, grids, and tasks: how many slots of level 4 are greyed, level 1 turned; or others.
GEOMETRIES: list[tuple[int, int, int, tuple[int, ...], int | tuple[TaskRule, ...]]] = [
    (4, 24, 16, (1, 2, 4), 2),  # every turn; level 4 is enlarged
    (4, 48, 24, (4, 1), 3),  # another order
    (5, 16, 16, (1,), 0),  # turned without a filter
    (2, 60, 16, GRIDS, 2),
    (2, 64, 16, (4,), 2),  # level and patch alike: copied, its greys are not
    (1, 96, 24, (8,), 0),
    (4, 30, 50, (1,), 0),  # no power of two, stores that are no vectors
    (1, 60, 17, (5, 2), 0),
    (4, 20, 19, (1,), 0),  # tiles side by side that overlap the edge, turned every way
    (1, 128, 17, (2,), 0),
    (1, 100, 50, (2,), 0),
    (2, 144, 48, (3,), 0),  # copied, several tiles, the last one short
    (4, 20, 1, (1, 2, 4), 1),  # one pixel a patch
    (2, 130, 16, (1,), 0),  # loops over taps, both ways
    (1, 4, 24, (4,), 1),  # one pixel a cell
    (1, 9, 33, (3,), 0),
    (4, 60, 16, GRIDS, OTHERS),
    (4, 30, 15, (2, 3, 5, 1), OTHERS[:2]),
]


def tasks_of(grids: Sequence[int], num_grey: int) -> tuple[TaskRule, ...]:
    """Level 1 turned where it is there, `num_grey` slots of level 4 greyed."""
    turn = (TaskRule(1, "turn"),) if 1 in grids else ()
    return turn + ((TaskRule(4, "grey", num_grey),) if num_grey else ())


def drawn(size: int, tasks: Sequence[TaskRule], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Labels, every turn in turn, and slots; a batch's second sample is a hole."""
    generator = torch.Generator().manual_seed(seed)
    slots = [torch.rand(size, task.grid**2, generator=generator).argsort(dim=1)[:, : task.num_slots].int() for task in tasks]
    slots = torch.cat([torch.zeros(size, 0, dtype=torch.int32), *slots], dim=1)
    slots[1:2] = -1
    labels = torch.arange(size)[:, None] + torch.arange(len(tasks))
    return (labels % 4).int(), slots
