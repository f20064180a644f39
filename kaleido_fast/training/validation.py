"""Losses and accuracies on the first samples of the validation split, always with the same plan (epoch 2^28 - 1)."""

from dataclasses import dataclass

import numpy as np
import torch

from kaleido_fast.data.batches.loader import evaluation_batches
from kaleido_fast.data.batches.source import BatchSource
from kaleido_fast.training.engine import Engine
from kaleido_fast.training.settings import StepConfig
from kaleido_fast.training.telemetry import TaskMeter
from kaleido_fast.training.workers.group import Workers


@dataclass(slots=True)
class PretrainValidation:
    """The losses of `train.validation_samples` samples, every worker taking its share of the batches."""

    engine: Engine
    config: StepConfig
    source: BatchSource
    workers: Workers
    holes: dict[str, str]  # takes the samples that could not be read, and why
    draw_text: bool = True  # whether mismatched texts are drawn

    @torch.no_grad()
    def measure(self) -> dict[str, dict[str, float]]:
        """{"losses", "accuracy"} of the weights as they are now."""
        train, workers = self.config.train, self.workers
        step, meter = self.engine.module, TaskMeter(train.task_weights)
        step.eval()
        try:
            for batch in evaluation_batches(
                    self.source, self._share(), self.config.data, seed=train.seed, micro_batch=train.micro_batch,
                    device=workers.device, draw_text=self.draw_text, own_texts=train.contrasts, holes=self.holes):
                num_rows = step.count(batch)
                meter.add(self.engine(batch, num_rows, num_rows, None), num_rows)  # the engine: in the precision of training
        finally:
            step.train()
        return meter.read(workers)

    def _share(self) -> np.ndarray:
        """This worker's samples, -1 behind them up to whole batches."""
        train, workers = self.config.train, self.workers
        samples = np.arange(min(train.validation_samples, self.source.split.num_samples))
        # The same number of batches everywhere: from stage 1 on a forward pass is a meeting of all workers.
        share = -(-len(samples) // (workers.count * train.micro_batch)) * train.micro_batch
        mine = samples[workers.rank * share : (workers.rank + 1) * share]
        padded = np.full(share, -1, np.int64)
        padded[: len(mine)] = mine
        return padded
