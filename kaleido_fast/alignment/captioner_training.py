"""Training the captioner with the DeepSpeed engine, every sample under its own text; what was interrupted goes on.

    run.out/captioner-training/recipe.json       what decides the captioner
                               step-00000250/    a checkpoint (training/checkpoint.py), of DeepSpeed's state alone
"""

import json
import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from kaleido_fast.alignment.captioner import Captioner, CaptionSums
from kaleido_fast.alignment.captioner_folder import first_difference
from kaleido_fast.alignment.settings import AlignConfig
from kaleido_fast.data.batches.batch import Batch
from kaleido_fast.data.batches.loader import Loader
from kaleido_fast.data.shards.split import Split
from kaleido_fast.files import replace_text
from kaleido_fast.progress_bar import ProgressBar
from kaleido_fast.training.checkpoint import clean_leftovers, latest_checkpoint, load_checkpoint, save_checkpoint
from kaleido_fast.training.engine import Engine
from kaleido_fast.training.length import RunLength, require_length
from kaleido_fast.training.schedule import fitting_warmup, learning_rate
from kaleido_fast.training.settings import TrainSettings
from kaleido_fast.training.workers.group import Workers
from kaleido_fast.training.workers.stop import StopRequest

WEIGHT_DECAY, BETAS = 0.01, (0.9, 0.98)
LOG_EVERY = 25
RECIPE, KEPT = "recipe.json", 1
COUNT = "the number of workers"  # in the recipe: a step takes align.micro_batch samples of each


class TrainedCaptioner(NamedTuple):
    """What a training came to."""

    weights: dict[str, Tensor]  # the state dict, on the CPU
    report: dict[str, Any]  # steps, samples, loss and accuracy a word, share of words that looked
    samples_per_s: float  # of all workers, of the steps since it was started or resumed


def train_settings(config: AlignConfig) -> TrainSettings:
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


def find_training(folder: Path, recipe: dict[str, Any], num_workers: int) -> Path | None:
    """The checkpoint from which a training goes on; None where one begins, which is then prepared for. One worker calls it.

    Raises:
        ValueError: a training by other settings was interrupted there, or a file of it was changed.
    """
    file, wanted = folder / RECIPE, recipe | {COUNT: num_workers}
    clean_leftovers(folder)
    checkpoint = latest_checkpoint(folder)
    if checkpoint is None:
        folder.mkdir(parents=True, exist_ok=True)
        replace_text(file, json.dumps(wanted, indent=1))
        return None
    try:
        found = dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise ValueError(f"{file}: not readable; remove {folder}, and the captioner is trained anew") from None
    difference = first_difference(found, wanted)
    if difference:
        raise ValueError(f"{folder}: a captioner's training was interrupted there, {difference}; go on with that, give another "
                         "run.out, or remove the folder")
    return checkpoint


def train_captioner(
    captioner: Captioner, config: AlignConfig, split: Split, workers: Workers, folder: Path, checkpoint: Path | None
) -> TrainedCaptioner | int:
    """Train on a split; all workers call it.

    Args:
        folder: takes the checkpoints, until the captioner is saved.
        checkpoint: where to go on, from `find_training`.
    Returns:
        The captioner; or, where SIGTERM or Ctrl-C stopped its training, which was saved, the exit code, 128 + the signal's
        number.
    """
    stop = StopRequest()
    try:
        return _Training(captioner, config, split, workers, folder, checkpoint, stop).run()
    finally:
        stop.release()


class _Training:
    """One worker's part."""

    def __init__(
        self, captioner: Captioner, config: AlignConfig, split: Split, workers: Workers, folder: Path, checkpoint: Path | None,
        stop: StopRequest,
    ) -> None:
        self.settings, self.workers, self.folder, self.stop = train_settings(config), workers, folder, stop
        self.checkpoint_every = config.align.checkpoint_every
        self.engine = Engine(captioner, self.settings, config.run, workers.count)
        self.samples_per_step = self.settings.micro_batch * workers.count
        self.done, total = 0, None
        self._clear()
        if checkpoint is not None:
            total = self._resume(checkpoint)
        self.length = RunLength(self.settings, self.samples_per_step, split.num_samples, total)
        self.loader = Loader(
            split, config.data, seed=self.settings.seed, micro_batch=self.settings.micro_batch, device=workers.device,
            worker=workers.rank, num_workers=workers.count, position=self.done * self.samples_per_step, draw_text=False)

    def run(self) -> TrainedCaptioner | int:
        report, first, started, stopped = {}, self.done, time.perf_counter(), False
        with ProgressBar(self.length.total, "captioner", "step", done=self.done, shown=self.workers.is_first) as bar:
            while not (stopped or self.is_done):
                stopped = self._step()
                self._measure(bar)
                if self.done % LOG_EVERY == 0 or self.is_done:
                    report = self._report()
                    bar.note(loss=f"{report['loss']:.3f}", accuracy=f"{report['accuracy']:.3f}")
                bar.update()
                if not self.is_done and (stopped or self.done % self.checkpoint_every == 0):
                    self._save()
        seconds = time.perf_counter() - started
        weights = self.engine.weights()
        self.engine.destroy()
        if not self.is_done:
            return 128 + (self.stop.signal or 15)
        report = {"steps": self.done, "samples": self.done * self.samples_per_step, **report}
        return TrainedCaptioner(weights, report, (self.done - first) * self.samples_per_step / seconds)

    @property
    def is_done(self) -> bool:
        return self.length.total is not None and self.done >= self.length.total

    def _step(self) -> bool:
        """One optimizer step; returns whether any worker was asked to stop."""
        batch = next(self.loader)
        lengths = np.where(batch.host.present, batch.host.lengths, 0)
        own = np.array([(lengths - 1).clip(min=0).sum(), (lengths > 0).sum()], np.float64)
        words, stops = self.workers.total(np.array([own[0], bool(self.stop.signal)], np.float64))
        torch.manual_seed(self.settings.seed + self.done * self.workers.count + self.workers.rank)  # dropout
        sums = self.engine(*_inputs(batch, lengths), float(words))
        self.engine.backward(sums.loss)
        warmup = self.settings.warmup_steps if self.length.total is None else \
            fitting_warmup(self.settings.warmup_steps, self.length.total)
        self.engine.step(learning_rate(self.done, self.length.total, base=self.settings.learning_rate, warmup_steps=warmup,
                                       schedule="linear"))
        self._add(sums, own)
        self.done += 1
        return stops > 0

    def _measure(self, bar: ProgressBar) -> None:
        estimate = self.length.tick(self.done)
        if estimate is not None:
            self.length.total = int(self.workers.from_first(estimate))
            bar.expect(self.length.total)

    def _add(self, sums: CaptionSums, rows: np.ndarray) -> None:
        self.sums += torch.stack([sums.entropy, sums.correct, sums.looks]).double()
        self.rows += rows

    def _clear(self) -> None:
        """Begin to sum anew: entropy, right words and looks on the device, words and samples on the host."""
        self.sums, self.rows = torch.zeros(3, dtype=torch.float64, device=self.workers.device), np.zeros(2)

    def _totals(self) -> np.ndarray:
        """The sums since the last report, over all workers; waits for the device."""
        return self.workers.total(np.concatenate([self.sums.cpu().numpy(), self.rows]))

    def _report(self) -> dict[str, float]:
        """Means a word since the last report."""
        entropy, correct, looks, words, _ = self._totals().tolist()
        self._clear()
        return {"loss": entropy / max(words, 1), "accuracy": correct / max(words, 1), "looks": looks / max(words, 1)}

    def _save(self) -> None:
        state = {"step": self.done, "total": self.length.total, "sums": self._totals().tolist()}
        save_checkpoint(self.folder, self.engine, self.workers, state, KEPT, with_weights=False)

    def _resume(self, checkpoint: Path) -> int | None:
        """Go on from a checkpoint; returns the number of steps in all, None where it was not known yet."""
        state = load_checkpoint(checkpoint, self.engine, self.workers, converted=False, with_weights=False)
        self.done = state["step"]
        if self.workers.is_first:
            self.sums += torch.tensor(state["sums"][:3], dtype=torch.float64, device=self.workers.device)
            self.rows += state["sums"][3:]
            print(f"{self.folder}: the captioner's training goes on at step {self.done}")
        return state["total"]


def forget_training(folder: Path) -> None:
    """Remove the checkpoints of a captioner that has been saved."""
    shutil.rmtree(folder, ignore_errors=True)


def _inputs(batch: Batch, lengths: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images, tokens cut to the longest text, lengths."""
    longest = max(int(lengths.max()), 2)
    return batch.images, batch.tokens[:, :longest], torch.from_numpy(lengths).to(batch.tokens.device)
