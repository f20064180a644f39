"""The training loop, top to bottom: build, resume, then fetch, forward, backward, step, log, save."""

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kaleido_fast.data.batches.batch import Batch
from kaleido_fast.data.batches.loader import Loader
from kaleido_fast.data.batches.upload import Upload
from kaleido_fast.data.shards.split import REPAIR
from kaleido_fast.model.kaleido_bert import KaleidoBert
from kaleido_fast.model.settings import InitSettings
from kaleido_fast.progress_bar import ProgressBar
from kaleido_fast.settings import as_yaml
from kaleido_fast.training.bert_start import describe_start, start_from_bert
from kaleido_fast.training.build import build_step, picked_kernels
from kaleido_fast.training.checkpoint import clean_leftovers, is_for_others, latest_checkpoint, load_checkpoint, save_checkpoint
from kaleido_fast.training.engine import Engine
from kaleido_fast.training.frozen_state import leave_out_encoder
from kaleido_fast.training.length import RunLength, require_ahead, require_length
from kaleido_fast.training.progress import Progress, samples_digest
from kaleido_fast.training.run_folder import RunFolder
from kaleido_fast.training.schedule import fitting_warmup, learning_rate
from kaleido_fast.training.settings import RunConfig
from kaleido_fast.training.stores.open import check_weights, open_splits, open_store
from kaleido_fast.training.summary import describe_run
from kaleido_fast.training.telemetry import Stopwatch, TaskMeter
from kaleido_fast.training.tensorboard import TensorBoard, require_tensorboard
from kaleido_fast.training.validation import validate
from kaleido_fast.training.weights_start import start_from_weights
from kaleido_fast.training.workers.failure import run_together
from kaleido_fast.training.workers.group import Workers, start_workers
from kaleido_fast.training.workers.stop import StopRequest


def pretrain(config: RunConfig, resume: bool = False) -> int:
    """Pre-train as `config` says, writing run.out; the exit code: 0 when done, 128 + n when signal n stopped it, 2 where
    another worker says what went wrong.

    Raises:
        ValueError: settings, shards or checkpoints that cannot be used; a run is there and `resume` is false.
    """
    stop = StopRequest()
    try:
        workers = start_workers(config.run.device, config.run.timeout_s)
        return run_together(workers, lambda: train_run(config, workers, stop, resume), config.run.timeout_s)
    finally:
        stop.release()


def train_run(config: RunConfig, workers: Workers, stop: StopRequest, resume: bool) -> int:
    """One run of workers that have met; returns and raises as `pretrain`."""
    return Run(config, workers, stop, resume).train()


class Run:
    """One worker's part of a run: `train` is the whole of it, `loader`, `turn` and `log` are what its loop consists of."""

    def __init__(self, config: RunConfig, workers: Workers, stop: StopRequest, resume: bool) -> None:
        self.config, self.train_settings = config, config.train
        self.folder, self.workers, self.stop = RunFolder(config.run.out), workers, stop
        self.holes: dict[str, str] = {}  # this worker's unreadable samples, and why
        self.tensorboard: TensorBoard | None = None  # of the first worker, once the run's folder is there
        self.samples_per_step = config.train.micro_batch * config.train.accumulation * workers.count
        with workers.together():
            require_length(config.train)
            self.split, self.validation_split = open_splits(config)
            self.store, self.validation_store = (open_store(config, split) for split in (self.split, self.validation_split))
            if config.run.tensorboard:
                require_tensorboard()
            self.kernels = picked_kernels(config, workers.device)
            found, checkpoint = self._look(resume) if workers.is_first else (False, None)
        found, checkpoint = workers.from_first((found, checkpoint))
        manifest, alignment = self.split.manifest, config.data.alignment
        self.progress = Progress(batch=self.samples_per_step, shards=manifest.fingerprint_with(alignment),
                                 alignment=manifest.aligned.get(alignment, ""))
        converted = checkpoint is not None and is_for_others(checkpoint, workers.count)
        torch.manual_seed(config.train.seed)  # the random weights
        step = build_step(config, self.split.manifest, resumed=checkpoint is not None)
        leave_out_encoder(step, step.model)
        if checkpoint is None and (config.init.bert or config.init.weights):  # a resumed run's are in the checkpoint
            self._start_from(config.init, step.model)
        self.engine = Engine(step, config.train, config.run, workers.count, converted)
        if checkpoint is not None:
            self._resume(checkpoint, converted)
        self.saved_at = self.progress.step if checkpoint is not None else None
        with workers.together():  # last: what cannot run leaves nothing behind
            check_weights(config, self.store, step.model)
            if workers.is_first:
                text = as_yaml(config)
                self.folder.go_on(self.progress.step, text) if found else self.folder.start(text)
        if workers.is_first and config.model.attention != "sdpa":
            print(f"model.attention={config.model.attention}: {self.kernels}")
        self.upload = Upload(workers.device)
        self.meter, self.watch = TaskMeter(self.progress.meter if workers.is_first else None), Stopwatch()

    def _look(self, resume: bool) -> tuple[bool, Path | None]:
        """Whether a run is there, and its newest checkpoint; what a kill left half-written goes."""
        if not self.folder.find(as_yaml(self.config), resume, defaults=as_yaml(type(self.config)())):
            return False, None
        clean_leftovers(self.folder.checkpoints)
        return True, latest_checkpoint(self.folder.checkpoints)

    def _start_from(self, init: InitSettings, model: KaleidoBert) -> None:
        config, shards = self.config, self.config.data.shards
        with self.workers.together():
            if init.weights:
                self.progress.init = start_from_weights(model, Path(init.weights), shards=shards)
            else:
                loaded = start_from_bert(model, Path(init.bert), max_tokens=config.data.max_tokens, shards=shards)
                self.progress.init = describe_start(init.bert, loaded, config.model.layers)
        if self.workers.is_first:
            print(f"init.{'weights' if init.weights else 'bert'}: {self.progress.init}")

    def _resume(self, checkpoint: Path, converted: bool) -> None:
        """Go on from a checkpoint."""
        progress = Progress.restore(load_checkpoint(checkpoint, self.engine, self.workers, converted))
        with self.workers.together():
            if progress.shards != self.progress.shards:
                found, now = (one.alignment[:16] for one in (progress, self.progress))
                if found != now:
                    raise ValueError(f"data.alignment={self.config.data.alignment}: made anew since {checkpoint}: SHA-256 "
                                     f"{now}…, the run began with {found}…; align as it was, or give another run.out")
                raise ValueError(f"data.shards={self.config.data.shards}: not the shards of {checkpoint}; resume with "
                                 "those, or give another run.out")
            require_ahead(self.train_settings, progress, self.split.num_samples)
            if self.workers.is_first:
                self.holes |= self.folder.read_holes()
        self.progress = progress
        if progress.batch != self.samples_per_step and self.workers.is_first:
            print(f"{self.folder.path}: goes on with {self.samples_per_step} samples a step, it began with {progress.batch}; "
                  "train.micro_batch and train.accumulation may be given anew to keep that", file=sys.stderr)

    def train(self) -> int:
        """Step until the run's length is reached or a stop is asked for, then save."""
        settings, progress = self.train_settings, self.progress
        length = RunLength(settings, progress.batch, self.split.num_samples, progress.total_steps)
        progress.total_steps = length.total
        loader = self.loader()
        if self.config.run.tensorboard and self.workers.is_first:
            self.tensorboard = TensorBoard(self.folder.path, progress.step)
        stopped = False
        with self.bar() as bar:
            while not stopped and not progress.is_done:
                stopped = self.turn(loader)
                self._measure(length, bar)
                bar.update()
                if self.due(settings.log_every):
                    self.log(bar)
                with self.watch.excluded():
                    if self.due(settings.validate_every):
                        self._validate()
                    if stopped or self.due(settings.checkpoint_every):
                        self._save()
        if self.saved_at != progress.step:
            self._save()
        if self.tensorboard is not None:
            self.tensorboard.close()
        return 128 + self.stop.signal if self.stop.signal else (128 + 15 if stopped else 0)

    def loader(self) -> Loader:
        """The worker's micro-batches from where the run stands."""
        return Loader(
            self.split, self.config.data, seed=self.train_settings.seed, micro_batch=self.train_settings.micro_batch,
            device=self.workers.device, worker=self.workers.rank, num_workers=self.workers.count,
            position=self.progress.position, holes=self.holes, store=self.store,
        )

    def turn(self, batches: Iterator[Batch]) -> bool:
        """Fetch, then one optimizer step; returns whether any worker was asked to stop.

        Raises:
            ValueError: more holes than data.max_holes allows.
        """
        with self.watch.waiting():
            fetched = [next(batches) for _ in range(self.train_settings.accumulation)]
        stopped = self._step(fetched)
        self._stop_past_limit()
        return stopped

    def _step(self, batches: list[Batch]) -> bool:
        """One optimizer step; returns whether any worker was asked to stop."""
        own = [self.engine.module.count(batch) for batch in batches]
        names = list(own[0])
        digest = sum(samples_digest(self.split.rows(batch.host.samples)["key"]) for batch in batches)
        holes = sum(int((~batch.host.present).sum()) for batch in batches)
        counts = [sum(rows[name] for rows in own) for name in names]
        *totals, stops, digest, holes = self.workers.total(
            np.array([*counts, bool(self.stop.signal), digest, holes], np.float64))
        step_rows, rate = dict(zip(names, totals, strict=True)), self._learning_rate()
        for micro, (batch, rows) in enumerate(zip(batches, own, strict=True)):
            result = self.engine(batch, rows, step_rows, self._dropout_key(micro))
            self.engine.backward(result.loss)
            self.engine.step(rate)
            self.meter.add(result, rows)
        self.progress.advance(self.samples_per_step, int(digest), int(holes))
        self.watch.seen(self.samples_per_step)
        return stops > 0

    def _stop_past_limit(self) -> None:
        """Too much of the data is unreadable: name it in summary.json and give up (on all workers alike)."""
        holes, limit = self.progress.holes, self.config.data.max_holes
        if holes <= limit * max(self.progress.position, self.split.num_samples):
            return
        self._write_summary()
        examples = "".join(f"; {name}: {reason}" for name, reason in list(self.holes.items())[:1])
        raise ValueError(f"{self.config.data.shards}: {holes} of {self.progress.position} samples seen could not be read, "
                         f"more than data.max_holes={limit:g} allows{examples}; {REPAIR}, or raise data.max_holes and "
                         "resume")

    def _dropout_key(self, micro: int) -> torch.Tensor:
        """(3,) int64: seed, step, stream; torch's own generator is keyed by the same, for the encoder's dropout."""
        stream = micro * 65536 + self.workers.rank
        key = [self.train_settings.seed, self.progress.step, stream]
        digest = hashlib.sha256(np.array(key, np.int64).tobytes()).digest()
        torch.manual_seed(int.from_bytes(digest[:8], "little", signed=True))
        return self.upload({"key": np.array(key, np.int64)})["key"]

    def _learning_rate(self) -> float:
        settings, total = self.train_settings, self.progress.total_steps
        warmup = settings.warmup_steps if total is None else fitting_warmup(settings.warmup_steps, total)
        return learning_rate(self.progress.schedule_step, total, base=settings.learning_rate, warmup_steps=warmup,
                             schedule=settings.schedule)

    def _measure(self, length: RunLength, bar: ProgressBar) -> None:
        estimate = length.tick(self.progress.step)
        if estimate is not None:
            self.progress.set_last_step(int(self.workers.from_first(estimate)), self.samples_per_step)
            length.total = self.progress.total_steps
            bar.expect(self.progress.last_step(self.samples_per_step))

    def due(self, every: int) -> bool:
        """Whether what is done each so many steps, and at the end, is due now."""
        return self.progress.step % every == 0 or self.progress.is_done

    def log(self, bar: ProgressBar) -> None:
        """Read the meters (this waits for the device) and write one line of metrics.jsonl."""
        report = self.meter.read(self.train_settings.task_weights, self.workers)
        line = {"step": self.progress.step, "samples": self.progress.position, "digest": self.progress.take_digest(), **report,
                "learning_rate": self.engine.optimizer.param_groups[0]["lr"], "grad_norm": self.engine.grad_norm(),
                **self.watch.read()}
        self.meter = TaskMeter()
        if self.workers.is_first:
            self._write(line)
            bar.note(loss=f"{report['losses']['total']:.2f}", itm=f"{report['losses'].get('itm', 0):.3f}",
                     sps=f"{line['samples_per_s']:.0f}")

    def _validate(self) -> None:
        report = validate(self.engine, self.config, self.validation_split, self.workers, self.workers.device, self.holes,
                          self.validation_store)
        if self.workers.is_first:
            self._write({"step": self.progress.step, "validation": report})

    def _write(self, line: dict[str, Any]) -> None:
        self.folder.append_metrics(line)
        if self.tensorboard is not None:
            self.tensorboard.add(line)

    def _save(self) -> None:
        state = replace(self.progress, meter=self.meter.totals(self.workers)).as_state()
        save_checkpoint(self.folder.checkpoints, self.engine, self.workers, state, self.train_settings.keep_checkpoints)
        self._write_summary()
        self.saved_at = self.progress.step

    def _write_summary(self) -> None:
        holes = self.workers.merged(self.holes)
        if self.workers.is_first:
            self.folder.write_summary(describe_run(
                self.config, self.split, self.progress.as_state(), holes, self.workers.count, self.store, self.kernels))

    def bar(self) -> ProgressBar:
        """The first worker's progress bar."""
        return ProgressBar(self.progress.last_step(self.samples_per_step), "pretrain", "step", done=self.progress.step,
                           shown=self.workers.is_first)
