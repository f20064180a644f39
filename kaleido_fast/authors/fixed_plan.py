"""The plan of samples that were masked, turned, moved and greyed before they were stored, as in the authors' files.

Their features hold the transforms already, so every position reads its own row; only blanking is done here. A file has the
greyed features at their slots and the clean ones apart; `rows_in_place` swaps them, so that a batch holds what SPEC 2
'Rows' says: K rows with the clean features of the greyed slots, then the greyed features.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from kaleido_fast.kernels.geometry import GRIDS, num_positions, offset_of_grid
from kaleido_fast.kernels.plan_outputs import Plan
from kaleido_fast.kernels.plan_rules import GREY_GRID, NONE
from kaleido_fast.kernels.source import clean_source, show


def fixed_plan(
    tokens: Tensor, masked_positions: Tensor, masked_labels: Tensor, *, rotation: Tensor, permutation: Tensor,
    camouflage: Tensor, grey_slots: Tensor, blank_slots: Tensor, grids: Sequence[int] = GRIDS, blank_grid: int = 5,
) -> Plan:
    """The plan of a batch whose transforms are done, on the tensors' device.

    Args:
        tokens: (B, T) int32 ids, masked already.
        masked_positions, masked_labels: (B, M) int32 places and original ids; NONE and IGNORED where there is none.
        rotation, permutation, camouflage: (B,) int32 labels; IGNORED in a hole.
        grey_slots, blank_slots: (B, G), (B, Z) int32, in any order; the predictions keep it. NONE in a hole.
    """
    grids, num_grey = tuple(grids), grey_slots.shape[1]
    source = clean_source(len(tokens), grids, num_grey, tokens.device)
    greyed = source[:, :1] + num_positions(grids) + torch.arange(num_grey, device=tokens.device)
    show(source, offset_of_grid(grids, GREY_GRID), grey_slots.long(), greyed)
    blanks = blank_slots.long()
    show(source, offset_of_grid(grids, blank_grid), blanks, torch.full_like(blanks, NONE))
    none = torch.full_like(rotation, NONE)
    return Plan(
        rotation=rotation, permutation=permutation, camouflage_slot=camouflage, camouflage_label=camouflage,
        donor=none, donor_slot=none, grey_slots=grey_slots, blank_slots=blank_slots, source=source.to(torch.int32),
        masked_tokens=tokens, masked_positions=masked_positions, masked_labels=masked_labels,
        num_masked=(masked_positions != NONE).sum(dim=1, dtype=torch.int32),
    )


def rows_in_place(stored: Tensor, grey_slots: Tensor, grids: Sequence[int] = GRIDS) -> Tensor:
    """(B, K + G, F): the clean features at their slots, the greyed ones behind.

    Args:
        stored: (B, K + G, F), the K positions as the file has them (greyed at `grey_slots`), then the G clean features.
        grey_slots: (B, G) different slots, in the order of the clean features; NONE in a hole, whose rows count nowhere.
    """
    batch, rows, _ = stored.shape
    num_grey = grey_slots.shape[1]
    order = torch.arange(rows, device=stored.device).repeat(batch, 1)
    places = offset_of_grid(grids, GREY_GRID) + grey_slots.long().clamp(min=0)
    behind = order[:, rows - num_grey :].clone()
    order.scatter_(1, places, behind)
    order[:, rows - num_grey :] = places
    return stored.gather(1, order[:, :, None].expand_as(stored))
