"""Losses and accuracies on the first samples of the validation split, always with the same plan (epoch 2^28 - 1)."""

import numpy as np
import torch

from kaleido_fast.data.batches.from_store import EncodedPhotographs
from kaleido_fast.data.batches.loader import evaluation_batches
from kaleido_fast.data.shards.split import Split
from kaleido_fast.training.engine import Engine
from kaleido_fast.training.settings import StepConfig
from kaleido_fast.training.telemetry import TaskMeter
from kaleido_fast.training.workers.group import Workers


@torch.no_grad()
def validate(
    engine: Engine, config: StepConfig, split: Split, workers: Workers, device: torch.device,
    holes: dict[str, str], store: EncodedPhotographs | None,
) -> dict[str, dict[str, float]]:
    """{"losses", "accuracy"} of `train.validation_samples` samples, every worker taking its share of the batches.

    `holes` takes those that could not be read, and why; `store` is the split's where features are stored.
    """
    train = config.train
    step, meter = engine.module, TaskMeter()
    samples = np.arange(min(train.validation_samples, split.num_samples))
    # The same number of batches everywhere: from stage 1 on a forward pass is a meeting of all workers.
    share = -(-len(samples) // (workers.count * train.micro_batch)) * train.micro_batch
    own = samples[workers.rank * share : (workers.rank + 1) * share]
    padded = np.full(share, -1, np.int64)
    padded[: len(own)] = own
    step.eval()
    try:
        for batch in evaluation_batches(split, padded, config.data, seed=train.seed, micro_batch=train.micro_batch,
                                        device=device, draw_text=True, holes=holes, store=store):
            rows = step.count(batch)
            meter.add(engine(batch, rows, rows, None), rows)  # the engine: in the precision of training
    finally:
        step.train()
    return meter.read(train.task_weights, workers)
