"""All rows that a store holds of photographs."""

import torch
from torch import Tensor

from kaleido_fast.data.store.photograph_rows import TURNS, num_greyed, num_turned
from kaleido_fast.kernels.cut import cut
from kaleido_fast.kernels.plan_rules import ROTATION_GRID
from kaleido_fast.model.kaleido_bert import KaleidoBert


@torch.no_grad()
def encode_photographs(model: KaleidoBert, images: Tensor) -> Tensor:
    """(B, R, F) fp32 of (B, S, S, 3) uint8: the rows of SPEC 2 'Stored rows' (data/store/photograph_rows.py)."""
    batch, kaleido = len(images), model.kaleido
    slots = torch.arange(num_greyed(kaleido.grids), dtype=torch.int32, device=images.device).repeat(batch, 1)
    unturned = torch.zeros(batch, dtype=torch.int32, device=images.device)
    rows = model.features(images, unturned, slots)
    if not num_turned(kaleido.grids):
        return rows
    turned = torch.cat([
        cut(images, unturned + turns, slots[:, :0], grids=(ROTATION_GRID,), patch_size=kaleido.patch_size,
            mean=kaleido.mean, std=kaleido.std) for turns in TURNS])
    turned = model.patch_encoder(turned).unflatten(0, (len(TURNS), batch)).transpose(0, 1)
    greyed = rows.shape[1] - slots.shape[1]
    return torch.cat([rows[:, :greyed], turned, rows[:, greyed:]], dim=1)
