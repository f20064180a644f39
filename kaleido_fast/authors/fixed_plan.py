"""The plan of samples that were masked, turned, moved and greyed before they were stored, as in the authors' files.

Their features hold the transforms already, so every position reads its own row; only blanking is done here. A file has the
greyed features at their slots and the clean ones apart; `rows_in_place` swaps them, so that a batch holds what SPEC 2
'Rows' says: K rows with the clean features of the greyed slots, then the greyed features.
"""

import torch
from torch import Tensor

from kaleido_fast.authors.tsv_columns import BLANKED, GREYED
from kaleido_fast.kernels.geometry import GRIDS, num_positions, offset_of_grid
from kaleido_fast.kernels.plan_outputs import Plan
from kaleido_fast.kernels.plan_rules import IGNORED, NONE
from kaleido_fast.kernels.source import clean_source, show
from kaleido_fast.kernels.tasks import TaskRule

GREY, BLANK = TaskRule(4, "grey", GREYED), TaskRule(5, "blank", BLANKED)
FILE_TASKS = (TaskRule(1, "turn"), TaskRule(2, "permute"), TaskRule(3, "swap", 1), GREY, BLANK)  # that the files hold


def fixed_plan(
    tokens: Tensor, masked_positions: Tensor, masked_labels: Tensor, *, rotation: Tensor, permutation: Tensor,
    camouflage: Tensor, grey_slots: Tensor, blank_slots: Tensor,
) -> Plan:
    """The plan of a batch whose transforms are done, on the tensors' device.

    Args:
        tokens: (B, T) int32 ids, masked already.
        masked_positions, masked_labels: (B, M) int32 places and original ids; NONE and IGNORED where there is none.
        rotation, permutation, camouflage: (B,) int32 labels; IGNORED in a hole.
        grey_slots, blank_slots: (B, 2), (B, 3) int32, in any order; the predictions keep it. NONE in a hole.
    """
    source = clean_source(len(tokens), GRIDS, GREYED, tokens.device)
    greyed = source[:, :1] + num_positions() + torch.arange(GREYED, device=tokens.device)
    show(source, offset_of_grid(GRIDS, GREY.grid), grey_slots.long(), greyed)
    blanks = blank_slots.long()
    show(source, offset_of_grid(GRIDS, BLANK.grid), blanks, torch.full_like(blanks, NONE))
    ignored, none = torch.full_like(rotation, IGNORED), torch.full_like(rotation, NONE)
    return Plan(
        labels=torch.stack([rotation, permutation, camouflage, ignored, ignored], dim=1),
        slots=torch.cat([camouflage.clamp(min=NONE)[:, None], grey_slots, blank_slots], dim=1), donors=none[:, None],
        donor_slots=none[:, None], source=source.to(torch.int32), masked_tokens=tokens, masked_positions=masked_positions,
        masked_labels=masked_labels, num_masked=(masked_positions != NONE).sum(dim=1, dtype=torch.int32), tasks=FILE_TASKS,
    )


def rows_in_place(stored: Tensor, grey_slots: Tensor) -> Tensor:
    """(B, K + 2, F): the clean features at their slots, the greyed ones behind.

    Args:
        stored: (B, K + 2, F), the K positions as the file has them (greyed at `grey_slots`), then the 2 clean features.
        grey_slots: (B, 2) different slots, in the order of the clean features; NONE in a hole, whose rows count nowhere.
    """
    batch, rows, _ = stored.shape
    order = torch.arange(rows, device=stored.device).repeat(batch, 1)
    places = offset_of_grid(GRIDS, GREY.grid) + grey_slots.long().clamp(min=0)
    behind = order[:, rows - GREYED :].clone()
    order.scatter_(1, places, behind)
    order[:, rows - GREYED :] = places
    return stored.gather(1, order[:, :, None].expand_as(stored))
