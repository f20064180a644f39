"""Plans that turn and grey and nothing else, for what reads rows of a store."""

from torch import Tensor

from kaleido_fast.kernels.geometry import GRIDS
from kaleido_fast.kernels.plan import clean_plan
from kaleido_fast.kernels.plan_outputs import Plan
from kaleido_fast.kernels.tasks import TaskRule


def turned_and_greyed(turns: Tensor, grey_slots: Tensor, grids: tuple[int, ...] = GRIDS) -> Plan:
    """Level 1 turned by `turns` (B,), `grey_slots` (B, G) of level 4 greyed, as far as the grids have them."""
    tasks = [TaskRule(1, "turn")] if 1 in grids else []
    if 4 in grids and grey_slots.shape[1]:
        tasks.append(TaskRule(4, "grey", grey_slots.shape[1]))
    labels, slots = turns.int()[:, None].repeat(1, len(tasks)), grey_slots.int()
    return clean_plan(turns.int()[:, None], grids)._replace(labels=labels, slots=slots, tasks=tuple(tasks))
