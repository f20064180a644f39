"""How far the losses with stored features are from those with computed ones, on the same batches, weights and plans."""

from dataclasses import replace
from typing import Any

import torch

from kaleido_fast.data.batches.from_photographs import FromPhotographs
from kaleido_fast.data.batches.loader import Loader
from kaleido_fast.data.shards.split import Split
from kaleido_fast.model.losses import StepResult
from kaleido_fast.training.build import build_step
from kaleido_fast.training.settings import StepConfig
from kaleido_fast.training.stores.open import check_weights, open_source
from kaleido_fast.training.workers.group import own_device

# Of a loss, relative to it. fp32 holds what was computed: what is left is the order of sums in products of other sizes.
# fp16 rounds a feature by at most 2^-11 of it.
BOUNDS = {"fp32": 1e-5, "fp16": 1e-3}


@torch.no_grad()
def stored_losses(config: StepConfig, batches: int = 4) -> dict[str, Any]:
    """Losses of the first micro-batches of the training split, random weights, without dropout, both ways.

    Args:
        config: whose store is there already (`kaleido-fast encode`).
    Returns:
        "stored_loss_difference", the largest |stored - computed| / |computed| over losses and batches,
        "stored_loss_bound", None for uint8, whose difference is reported alone, "dtype", and "losses", the largest of each.
    Raises:
        ValueError: there is no store, or it was made with other settings.
    """
    model = replace(config.model, features="stored", dropout=0.0, attention_dropout=0.0)
    config = replace(config, model=model)
    split = Split.open(config.data.shards, "train")
    source = open_source(config, split)
    torch.manual_seed(config.train.seed)
    step = build_step(config, split.manifest)
    check_weights(config, source, step.model)
    computed, stored = (
        Loader(one, config.data, seed=config.train.seed, micro_batch=config.train.micro_batch,
               device=own_device(config.run.device), own_texts=config.train.contrasts)
        for one in (FromPhotographs(split), source))
    largest: dict[str, float] = {}
    for _ in range(batches):
        ours, theirs = next(stored), next(computed)
        num_rows = step.count(theirs)
        from_store, from_photographs = (step(batch, num_rows, num_rows, None) for batch in (ours, theirs))
        for name, difference in _differences(from_store, from_photographs):
            largest[name] = max(largest.get(name, 0.0), difference)
    return {"stored_loss_difference": max(largest.values()), "stored_loss_bound": BOUNDS.get(config.data.store_dtype),
            "dtype": config.data.store_dtype, "losses": largest}


def _differences(from_store: StepResult, from_photographs: StepResult) -> list[tuple[str, float]]:
    """Of the total and of each loss, relative."""
    sums = {**from_photographs.loss_sums, "total": from_photographs.loss}
    ours = {**from_store.loss_sums, "total": from_store.loss}
    return [(name, float((ours[name] - value).abs() / value.abs())) for name, value in sums.items() if float(value.abs()) > 0]
