"""Which encoded row each input position reads (SPEC 2 "Rows" and SPEC 3).

A sample has K + G rows: its K positions, then the G greyed slots of level 4. Jigsaw, camouflage, grey and
blank only move or drop whole rows, so they are a table of row numbers and touch no pixel.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from kaleido_fast.kernels.geometry import num_positions, offset_of_grid
from kaleido_fast.kernels.plan_rules import CAMOUFLAGE_GRID, GREY_GRID, GROUP, JIGSAW_GRID, NONE, PERMUTATIONS, PlanRules


class Moves(NamedTuple):
    """What moves or drops rows; int64, NONE where nothing does."""

    permutation: Tensor  # (B,)
    camouflage_slot: Tensor  # (B,)
    donor: Tensor  # (B,)
    donor_slot: Tensor  # (B,)
    grey_slots: Tensor  # (B, G)
    blank_slots: Tensor  # (B, Z)


def clean_source(num_samples: int, grids: tuple[int, ...], num_grey: int, device: torch.device) -> Tensor:
    """(B, K) int64: every position reads its own row."""
    count = num_positions(grids)
    first_row = torch.arange(num_samples, device=device)[:, None] * (count + num_grey)
    return first_row + torch.arange(count, device=device)


def moved_source(moves: Moves, rules: PlanRules) -> Tensor:
    """(B, K) int64: the row each position reads, NONE where it is blank."""
    device = moves.donor.device
    source = clean_source(len(moves.donor), rules.grids, rules.num_grey, device)
    first_row = source[:, :1].clone()
    if rules.jigsaw:
        offset = offset_of_grid(rules.grids, JIGSAW_GRID)
        shown = torch.tensor(PERMUTATIONS, dtype=torch.int64, device=device)[moves.permutation]
        source[:, offset : offset + shown.shape[1]] = first_row + offset + shown
    if rules.camouflage:
        offset = offset_of_grid(rules.grids, CAMOUFLAGE_GRID)
        shown = moves.donor * rules.num_rows + offset + moves.donor_slot
        slot = torch.where(moves.donor != NONE, moves.camouflage_slot, NONE)
        show(source, offset, slot[:, None], shown[:, None])
    if rules.num_grey:
        greyed = first_row + rules.num_positions + torch.arange(rules.num_grey, device=device)
        show(source, offset_of_grid(rules.grids, GREY_GRID), moves.grey_slots, greyed)
    if rules.num_blank:
        nothing = torch.full_like(moves.blank_slots, NONE)
        show(source, offset_of_grid(rules.grids, rules.blank_grid), moves.blank_slots, nothing)
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
    found, first = fits.to(torch.uint8).max(dim=1)
    return torch.where(found > 0, members.gather(1, first[:, None])[:, 0], NONE)


def show(source: Tensor, offset: int, slots: Tensor, rows: Tensor) -> None:
    """Let `slots` (B, n) of a level read `rows` (B, n); a slot that is NONE changes nothing."""
    column = offset + slots.clamp(min=0)
    source.scatter_(1, column, torch.where(slots != NONE, rows, source.gather(1, column)))
