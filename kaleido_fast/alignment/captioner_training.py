"""Training the captioner with the DeepSpeed engine, every sample under its own text."""

from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from kaleido_fast.alignment.captioner import Captioner, CaptionSums
from kaleido_fast.config import Config
from kaleido_fast.data.batch import Batch
from kaleido_fast.data.loader import Loader
from kaleido_fast.data.shards import Split
from kaleido_fast.training.engine import Engine
from kaleido_fast.training.length import RunLength, require_length
from kaleido_fast.training.schedule import fitting_warmup, learning_rate
from kaleido_fast.training.settings import TrainSettings
from kaleido_fast.training.workers import Workers

WEIGHT_DECAY, BETAS = 0.01, (0.9, 0.98)
LOG_EVERY = 25


def train_settings(config: Config) -> TrainSettings:
    """The captioner's training as the engine takes it; precision, stage and seed are those of `train`.

    Raises:
        ValueError: the length of the training is not given.
    """
    align, train = config.align, config.train
    if not (align.steps or align.minutes):
        raise ValueError("give the length of the captioner's training, align.steps or align.minutes, or a trained one, "
                         "align.captioner=DIR")
    settings = TrainSettings(
        steps=align.steps, minutes=align.minutes, micro_batch=align.micro_batch, learning_rate=align.learning_rate,
        warmup_steps=align.warmup_steps, weight_decay=WEIGHT_DECAY, betas=BETAS, zero_stage=train.zero_stage,
        precision=train.precision, seed=train.seed)
    require_length(settings)
    return settings


def train_captioner(
    captioner: Captioner, config: Config, split: Split, workers: Workers
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Train on a split; all workers call it.

    Returns:
        The state dict on the CPU, and what the training came to: steps, samples, loss and accuracy a word, the share of words that looked.
    """
    return _Training(captioner, config, split, workers).run()


class _Training:
    """One worker's part."""

    def __init__(self, captioner: Captioner, config: Config, split: Split, workers: Workers) -> None:
        self.settings, self.workers = train_settings(config), workers
        self.engine = Engine(captioner, self.settings, config.run, workers.count)
        self.samples_per_step = self.settings.micro_batch * workers.count
        self.length = RunLength(self.settings, self.samples_per_step, split.num_samples)
        self.loader = Loader(
            split, config.data, seed=self.settings.seed, micro_batch=self.settings.micro_batch, device=workers.device,
            worker=workers.rank, num_workers=workers.count, draw_text=False)
        self._clear()

    def run(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        step, report = 0, {}
        with tqdm(total=self.length.total, desc="captioner", unit="step", disable=not self.workers.is_first,
                  dynamic_ncols=True) as bar:
            while self.length.total is None or step < self.length.total:
                self._step(step)
                step += 1
                estimate = self.length.tick(step)
                if estimate is not None:
                    bar.total = self.length.total = int(self.workers.from_first(estimate))
                if step % LOG_EVERY == 0 or step == self.length.total:
                    report = self._report()
                    bar.set_postfix(loss=f"{report['loss']:.3f}", accuracy=f"{report['accuracy']:.3f}")
                bar.update()
        weights = self.engine.weights()
        self.engine.destroy()
        return weights, {"steps": step, "samples": step * self.samples_per_step, **report}

    def _step(self, step: int) -> None:
        batch = next(self.loader)
        lengths = np.where(batch.host.present, batch.host.lengths, 0)
        own = np.array([(lengths - 1).clip(min=0).sum(), (lengths > 0).sum()], np.float64)
        words = float(self.workers.total(own.copy())[0])
        torch.manual_seed(self.settings.seed + step * self.workers.count + self.workers.rank)  # dropout
        sums = self.engine(*_inputs(batch, lengths), words)
        self.engine.backward(sums.loss)
        warmup = self.settings.warmup_steps if self.length.total is None else \
            fitting_warmup(self.settings.warmup_steps, self.length.total)
        self.engine.step(learning_rate(step, self.length.total, base=self.settings.learning_rate, warmup_steps=warmup,
                                       schedule="linear"))
        self._add(sums, own)

    def _add(self, sums: CaptionSums, rows: np.ndarray) -> None:
        self.sums += torch.stack([sums.entropy, sums.correct, sums.looks]).double()
        self.rows += rows

    def _clear(self) -> None:
        """Begin to sum anew: entropy, right words and looks on the device, words and samples on the host."""
        self.sums, self.rows = torch.zeros(3, dtype=torch.float64, device=self.workers.device), np.zeros(2)

    def _report(self) -> dict[str, float]:
        """Means a word since the last report, over all workers; waits for the device."""
        entropy, correct, looks, words, _ = self.workers.total(np.concatenate([self.sums.cpu().numpy(), self.rows]))
        self._clear()
        return {"loss": entropy / max(words, 1), "accuracy": correct / max(words, 1), "looks": looks / max(words, 1)}


def _inputs(batch: Batch, lengths: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images, tokens cut to the longest text, lengths."""
    longest = max(int(lengths.max()), 2)
    return batch.images, batch.tokens[:, :longest], torch.from_numpy(lengths).to(batch.tokens.device)
