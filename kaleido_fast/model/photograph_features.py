"""All rows that a store holds of photographs."""

import torch
from torch import Tensor

from kaleido_fast.data.store.photograph_rows import TURNED_GRID, TURNS
from kaleido_fast.kernels.cut import cut
from kaleido_fast.kernels.geometry import num_positions
from kaleido_fast.kernels.tasks import TaskRule
from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from kaleido_fast.model.kaleido_tasks import stored_rows


@torch.no_grad()
def encode_photographs(model: KaleidoBertModel, images: Tensor) -> Tensor:
    """(B, R, F) fp32 of (B, S, S, 3) uint8: the rows of SPEC 2 'Stored rows' (data/store/photograph_rows.py)."""
    batch, kaleido, stored = len(images), model.kaleido, stored_rows(model.kaleido)
    greys = [TaskRule(grid, "grey", grid**2) for grid in stored.greyed]
    every_slot = [slot for task in greys for slot in range(task.num_slots)]
    slots = torch.tensor(every_slot, dtype=torch.int32, device=images.device).repeat(batch, 1)
    labels = slots.new_zeros(batch, len(greys))
    rows = model.patch_encoder(model.patches(images, labels, slots, greys)).unflatten(0, (batch, -1))
    if not stored.turned:
        return rows
    turn = TaskRule(TURNED_GRID, "turn")
    turned = torch.cat([
        cut(images, slots.new_full((batch, 1), turns), slots[:, :0], grids=(TURNED_GRID,), tasks=(turn,),
            patch_size=kaleido.patch_size, mean=kaleido.mean, std=kaleido.std) for turns in TURNS])
    turned = model.patch_encoder(turned).unflatten(0, (len(TURNS), batch)).transpose(0, 1)
    clean = num_positions(kaleido.grids)
    return torch.cat([rows[:, :clean], turned, rows[:, clean:]], dim=1)
