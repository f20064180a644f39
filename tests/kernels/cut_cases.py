"""Tasks, labels and slots that every implementation of cut is tested with."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kaleido_fast.kernels.tasks import TaskRule

# A turn and two greys on other grids than the paper's, their columns behind those of tasks that need no pixel.
OTHERS = (TaskRule(2, "turn"), TaskRule(3, "grey", 2), TaskRule(5, "blank", 3), TaskRule(4, "swap", 1), TaskRule(1, "grey", 1))


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
