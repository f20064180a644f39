"""Training the captioner with the DeepSpeed engine, every sample under its own text; what was interrupted goes on.

    run.out/captioner-training/recipe.json       what decides the captioner
                               step-00000250/    a checkpoint (training/checkpoint.py), of DeepSpeed's state alone
"""

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from kaleido_fast.alignment.captioner import Captioner, CaptionSums
from kaleido_fast.alignment.captioner_folder import first_difference
from kaleido_fast.alignment.settings import AlignConfig
from kaleido_fast.data.batches.batch import Batch
from kaleido_fast.data.batches.from_photographs import FromPhotographs
from kaleido_fast.data.shards.split import Split
from kaleido_fast.files import replace_text
from kaleido_fast.model.finite import require_finite
from kaleido_fast.training.checkpoint import save_checkpoint
from kaleido_fast.training.engine import Engine, saved_state
from kaleido_fast.training.fed_samples import FedSamples
from kaleido_fast.training.length import require_length
from kaleido_fast.training.loop import Loop
from kaleido_fast.training.loop_start import find_checkpoint, start_engine, start_loop
from kaleido_fast.training.lost import RunLost
from kaleido_fast.training.progress import Progress
from kaleido_fast.training.settings import TrainSettings
from kaleido_fast.training.workers.group import Workers
from kaleido_fast.training.workers.stop import StopRequest

WEIGHT_DECAY, BETAS = 0.01, (0.9, 0.98)
LOG_EVERY = 25
SUMS, ROWS = ("entropy", "correct", "looks"), ("words", "samples")
REPORT = {"loss": "entropy", "accuracy": "correct", "looks": "looks"}  # what is told of a word, and the sum it is made of
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
        precision=train.precision, seed=train.seed, log_every=LOG_EVERY,
        checkpoint_every=align.checkpoint_every, max_skipped_steps=train.max_skipped_steps)
    require_length(settings)
    return settings


def find_training(folder: Path, recipe: dict[str, Any], num_workers: int) -> Path | None:
    """The checkpoint from which a training goes on; None where one begins, which is then prepared for. One worker calls it.

    Raises:
        ValueError: a training by other settings was interrupted there, or a file of it was changed.
    """
    file, wanted = folder / RECIPE, recipe | {COUNT: num_workers}
    checkpoint = find_checkpoint(folder)
    if checkpoint is None:
        folder.mkdir(parents=True, exist_ok=True)
        replace_text(file, json.dumps(wanted, indent=1))
        return None
    try:
        recorded = dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise ValueError(f"{file}: not readable; remove {folder}, and the captioner is trained anew") from None
    difference = first_difference(recorded, wanted)
    if difference:
        raise ValueError(f"{folder}: a captioner's training was interrupted there, {difference}; go on with that, give another "
                         "run.out, or remove the folder")
    return checkpoint


def train_captioner(
    captioner: Captioner, config: AlignConfig, split: Split, workers: Workers, folder: Path, checkpoint: Path | None,
    require_held: Callable[[], None] = lambda: None,
) -> TrainedCaptioner | int:
    """Train on a split; all workers call it.

    Args:
        folder: takes the checkpoints, until the captioner is saved.
        checkpoint: where to go on, from `find_training`.
        require_held: of `held_folder`.
    Returns:
        The captioner; or, where SIGTERM or Ctrl-C stopped its training, which was saved, the exit code, 128 + the signal's
        number.
    """
    stop = StopRequest()
    try:
        loop, records = start_captioner(captioner, config, split, workers, folder, checkpoint, stop, require_held)
        first, started = loop.progress.position, time.perf_counter()
        code = loop.run()
        seconds, progress = time.perf_counter() - started, loop.progress
        weights = loop.engine.weights()
        loop.engine.destroy()
        if not progress.is_done:
            return code
        report = {"steps": progress.step, "samples": progress.position, **{name: records.newest[name] for name in REPORT}}
        return TrainedCaptioner(weights, report, (progress.position - first) / seconds)
    finally:
        stop.release()


def start_captioner(
    captioner: Captioner, config: AlignConfig, split: Split, workers: Workers, folder: Path, checkpoint: Path | None,
    stop: StopRequest, require_held: Callable[[], None] = lambda: None,
) -> tuple[Loop, "CaptionerRecords"]:
    """A captioner's training that is ready to step, and its records; arguments as `train_captioner` takes them."""
    settings = train_settings(config)
    batch = settings.samples_per_step(workers.count)
    progress = Progress(batch=batch)
    engine = start_engine(captioner, settings, config.run, workers, checkpoint, with_weights=False)
    if checkpoint is not None:
        weights = engine.weights()
        with workers.together():
            require_finite(weights, str(checkpoint), f"remove {folder}, and the captioner is trained anew")
        progress = _progress_of(saved_state(checkpoint, config.run), batch)
        if workers.is_first:
            print(f"{folder}: the captioner's training goes on at step {progress.step}")
    records = CaptionerRecords(folder, engine, workers, require_held)
    loop = start_loop(
        "captioner", FromPhotographs(split), config.data, FedSamples(split, config.data.shards), progress, checkpoint,
        settings=settings, workers=workers, stop=stop, engine=engine, step=CaptionerStep(engine, settings.seed, workers),
        meter=CaptionMeter(progress.meter if workers.is_first else None), records=records, draw_text=False)
    return loop, records


class CaptionerStep:
    """A micro-batch of captions through the engine, its dropout keyed by (seed, step, worker)."""

    def __init__(self, engine: Engine, seed: int, workers: Workers) -> None:
        self._engine, self._seed, self._workers = engine, seed, workers

    def count(self, batch: Batch) -> dict[str, float]:
        """Words that are told, samples that tell some."""
        lengths = _lengths(batch)
        return {"words": float((lengths - 1).clip(min=0).sum()), "samples": float((lengths > 0).sum())}

    def forward(
        self, batch: Batch, num_rows: Mapping[str, float], num_step_rows: Mapping[str, float], step: int, micro: int
    ) -> CaptionSums:
        """The sums of a micro-batch; `step` optimizer steps are done, one micro-batch is a step."""
        longest = max(int(_lengths(batch).max()), 2)
        torch.manual_seed(self._seed + step * self._workers.count + self._workers.rank)
        lengths = torch.where(batch.present, batch.lengths, 0)  # `_lengths`, of what the batch has on its device
        return self._engine(batch.images, batch.tokens[:, :longest], lengths, float(num_step_rows["words"]))


class CaptionMeter:
    """Cross entropy, right words and looks, by word."""

    def __init__(self, totals: Mapping[str, Mapping[str, float]] | None = None) -> None:
        """Begin with `totals` of before; give them to one worker only."""
        before = (totals or {}).get("sums", {})
        self._rows = np.array([before.get(name, 0.0) for name in ROWS])
        self._sums = torch.tensor([before.get(name, 0.0) for name in SUMS], dtype=torch.float64)  # `add` moves it

    def add(self, result: CaptionSums, num_rows: Mapping[str, float]) -> None:
        """Take one micro-batch's sums."""
        sums = torch.stack([result.entropy, result.correct, result.looks]).double()
        self._sums = self._sums.to(sums.device) + sums
        self._rows = self._rows + np.array([num_rows[name] for name in ROWS])

    def totals(self, workers: Workers) -> dict[str, dict[str, float]]:
        """The sums over all workers; waits for the device."""
        totals = workers.total(np.concatenate([self._sums.cpu().numpy(), self._rows])).tolist()
        return {"sums": dict(zip((*SUMS, *ROWS), totals, strict=True))}

    def read(self, workers: Workers) -> dict[str, float]:
        """Means a word since it was last read; waits for the device."""
        sums = self.totals(workers)["sums"]
        self._sums, self._rows = torch.zeros_like(self._sums), np.zeros(len(ROWS))
        words = max(sums["words"], 1)
        return {name: sums[key] / words for name, key in REPORT.items()}

    def headline(self, report: Mapping[str, float]) -> dict[str, str]:
        """What the progress bar shows."""
        return {name: f"{report[name]:.3f}" for name in ("loss", "accuracy")}


@dataclass(frozen=True, slots=True)
class CaptionerRecords:
    """Checkpoints and the newest line, which is saved with the captioner."""

    folder: Path
    engine: Engine
    workers: Workers
    require_held: Callable[[], None] = lambda: None  # raises ValueError where another process has taken run.out over
    newest: dict[str, Any] = field(default_factory=dict)

    def write(self, line: dict[str, Any]) -> None:
        """Keep the line in place of the one before."""
        self.newest.update(line)

    def save(self, progress: Progress) -> None:
        """Write a checkpoint; at the end the captioner itself is saved instead."""
        self.require_held()
        if not progress.is_done:
            save_checkpoint(self.folder, self.engine, self.workers, progress.as_state(), KEPT, with_weights=False)

    def end(self, progress: Progress, how: str, lost: RunLost | None = None) -> None:
        """A captioner that is done, stopped or lost says so itself: by its folder, a checkpoint, an error."""


def _lengths(batch: Batch) -> np.ndarray:
    """(B,) tokens of each text; 0 where the sample could not be read."""
    return np.where(batch.host.present, batch.host.lengths, 0)


def _progress_of(state: dict[str, Any], batch: int) -> Progress:
    """Where a checkpoint stands; older ones have "step", "total" and "sums"."""
    if "total" not in state:
        return Progress.restore(state)
    return Progress(step=state["step"], position=state["step"] * batch, total_steps=state["total"], batch=batch,
                    meter={"sums": dict(zip((*SUMS, *ROWS), state["sums"], strict=True))})


def forget_training(folder: Path) -> None:
    """Remove the checkpoints of a captioner that has been saved."""
    shutil.rmtree(folder, ignore_errors=True)
