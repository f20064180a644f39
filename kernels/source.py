"""Which encoded row each input position reads (SPEC 2 "Rows" and SPEC 3).

A sample has K + G rows: its K positions, then the greyed slots, task by task. Permuting, swapping, greying and blanking only
move or drop whole rows, so they are a table of row numbers and touch no pixel; a turned patch is a row of its own position.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kaleido_fast.kernels.geometry import num_positions, offset_of_grid, positions_of_grid
from kaleido_fast.kernels.plan_rules import GROUP, NONE, PlanRules
from kaleido_fast.kernels.tasks import PERMUTATIONS, TaskRule, total_greyed


class Moves(NamedTuple):
    """What one task moves or drops; int64, NONE where nothing does."""

    label: Tensor  # (B,)
    slots: Tensor  # (B, num_slots)
    donor: Tensor  # (B,), of a swap
    donor_slot: Tensor  # (B,), of a swap


def clean_source(num_samples: int, grids: tuple[int, ...], num_greyed: int, device: torch.device) -> Tensor:
    """(B, K) int64: every position reads its own row."""
    count = num_positions(grids)
    first_row = torch.arange(num_samples, device=device)[:, None] * (count + num_greyed)
    return first_row + torch.arange(count, device=device)


def unturned_positions(grids: Sequence[int], tasks: Sequence[TaskRule], device: torch.device | None = None) -> Tensor:
    """(U,) int64: the positions whose rows show a turned patch under `tasks`, so that the unturned ones are rows of their own
    where a photograph is shown as it is; task by task."""
    turned = [positions_of_grid(grids, task.grid) for task in tasks if task.effect == "turn"]
    return torch.cat([torch.arange(level.start, level.stop, device=device) for level in turned] or
                     [torch.empty(0, dtype=torch.int64, device=device)])


def photograph_source(num_samples: int, grids: tuple[int, ...], tasks: Sequence[TaskRule], device: torch.device) -> Tensor:
    """(B, K) int64: every position reads its photograph's patch as it is, where the B * U unturned rows stand behind the
    B * (K + G) rows of SPEC 2 'Rows': sample by sample, in the order of `unturned_positions`."""
    grey = total_greyed(tasks)
    source, unturned = clean_source(num_samples, grids, grey, device), unturned_positions(grids, tasks, device)
    behind = num_samples * (num_positions(grids) + grey)
    source[:, unturned] = behind + torch.arange(num_samples * len(unturned), device=device).view(num_samples, -1)
    return source


def moved_source(moves: Sequence[Moves], rules: PlanRules, num_samples: int, device: torch.device) -> Tensor:
    """(B, K) int64: the row each position reads, NONE where it is blank; `moves` task by task."""
    source = clean_source(num_samples, rules.grids, rules.num_rows - rules.num_positions, device)
    first_row = torch.arange(num_samples, device=device)[:, None] * rules.num_rows
    next_grey = rules.num_positions
    for task, move in zip(rules.tasks, moves, strict=True):
        offset = offset_of_grid(rules.grids, task.grid)
        if task.effect == "permute":
            patches = torch.tensor(PERMUTATIONS, dtype=torch.int64, device=device)[move.label]
            source[:, offset : offset + patches.shape[1]] = first_row + offset + patches
        elif task.effect == "swap":
            shown = move.donor * rules.num_rows + offset + move.donor_slot
            show(source, offset, torch.where(move.donor != NONE, move.slots[:, 0], NONE)[:, None], shown[:, None])
        elif task.effect == "grey":
            show(source, offset, move.slots, first_row + next_grey + torch.arange(task.num_slots, device=device))
            next_grey += task.num_slots
        elif task.effect == "blank":
            show(source, offset, move.slots, torch.full_like(move.slots, NONE))
    return source


def find_donors(products: Tensor, present: Tensor, start: Tensor) -> Tensor:
    """The first member of the group from `start` on, cyclically, whose photograph is of another product.

    Args:
        products: (B,) int64, of the photographs.
        present: (B,) bool.
        start: (B,) int64, member number.
    Returns:
        (B,) int64, the row of that member; NONE where there is none.
    """
    rows, steps = (torch.arange(n, device=products.device) for n in (len(products), GROUP))
    members = (rows - rows % GROUP)[:, None] + (start[:, None] + steps) % GROUP
    fits = present[members] & (products[members] != products[:, None])
    is_found, first = fits.to(torch.uint8).max(dim=1)
    return torch.where(is_found > 0, members.gather(1, first[:, None])[:, 0], NONE)


def show(source: Tensor, offset: int, slots: Tensor, rows: Tensor) -> None:
    """Let `slots` (B, n) of a level read `rows` (B, n); a slot that is NONE changes nothing."""
    column = offset + slots.clamp(min=0)
    source.scatter_(1, column, torch.where(slots != NONE, rows, source.gather(1, column)))
