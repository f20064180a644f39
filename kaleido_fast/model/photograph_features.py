"""Features of a batch's photographs: computed, taken from a store's rows, or brought along; and all rows of a store."""

from typing import Any

import torch
from torch import Tensor

from kaleido_fast.data.store.photograph_rows import TURNS, num_greyed, num_turned
from kaleido_fast.kernels.cut import cut
from kaleido_fast.kernels.plan_outputs import Plan
from kaleido_fast.kernels.plan_rules import ROTATION_GRID
from kaleido_fast.model.kaleido_bert import KaleidoBert


def features_and_targets(model: KaleidoBert, batch: Any, plan: Plan) -> tuple[Tensor, Tensor]:
    """(B, K + G, F), and the colour tasks' targets of the same rows; of frozen features they are the same.

    Args:
        batch: data.batch.Batch.
    Raises:
        ValueError: the batch's features are not those of the model's patch encoder.
    """
    features, encoder = batch.features, model.patch_encoder
    if batch.encoded is not None:
        features = batch.encoded.read(plan.rotation, plan.grey_slots)
    if features is None:
        return model.features_and_targets(batch.images, plan.rotation, plan.grey_slots)
    if not features.shape[2] == encoder.num_features == encoder.num_targets:
        raise ValueError(f"step: the batch's features have width {features.shape[2]}, model.patch_encoder="
                         f"{encoder.name} has features of {encoder.num_features} and targets of {encoder.num_targets}; "
                         f"set model.patch_encoder=none and model.patch_features={features.shape[2]}")
    return features, features


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
