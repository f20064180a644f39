"""The training loop, top to bottom: build, resume, then fetch, forward, backward, step, log, save."""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from kaleido_fast.config import Config, dump_config
from kaleido_fast.data.batch import Batch
from kaleido_fast.data.loader import Loader
from kaleido_fast.data.shards import REPAIR, Split
from kaleido_fast.model.kaleido_bert import KaleidoBert
from kaleido_fast.training.bert_start import describe_start, start_from_bert
from kaleido_fast.training.build import build_step
from kaleido_fast.training.checkpoint import has_checkpoint, latest_checkpoint, save_checkpoint
from kaleido_fast.training.engine import Engine
from kaleido_fast.training.length import RunLength, require_length
from kaleido_fast.training.run_folder import RunFolder
from kaleido_fast.training.schedule import fitting_warmup, learning_rate
from kaleido_fast.training.stop import StopRequest
from kaleido_fast.training.summary import describe_run
from kaleido_fast.training.tensorboard import TensorBoard, require_tensorboard
from kaleido_fast.training.telemetry import Stopwatch, TaskMeter
from kaleido_fast.training.validation import validate
from kaleido_fast.training.workers import Workers, start_workers


@dataclass(slots=True)
class Progress:
    """Where a run stands; what a checkpoint stores beside DeepSpeed's state."""

    step: int = 0  # optimizer steps done
    position: int = 0  # stream position of the next sample, over all workers
    total_steps: int | None = None
    holes: int = 0  # samples seen that could not be read
    shards: str = ""  # fingerprint of the shards: at the same positions others would stand
    init: str = "random"  # what the weights started from, in words


def pretrain(config: Config, resume: bool = False) -> int:
    """Pre-train as `config` says, writing run.out; the exit code: 0 when done, 128 + n when signal n stopped it.

    Raises:
        ValueError: settings, shards or checkpoints that cannot be used; a run is there and `resume` is false.
    """
    stop = StopRequest()
    try:
        workers = start_workers(config.run.device, config.run.timeout_s)
        folder = RunFolder(config.run.out)
        begins = workers.from_first(not (resume and has_checkpoint(folder.checkpoints)))
        run = _Run(config, folder, workers, stop, begins > 0)  # before the folder is made: what cannot run leaves nothing behind
        resumed = folder.start(dump_config(config), resume) if workers.is_first else False
        if workers.from_first(resumed):
            run.resume()
        return run.train()
    finally:
        stop.release()


class _Run:
    """One worker's part of a run."""

    def __init__(
        self, config: Config, folder: RunFolder, workers: Workers, stop: StopRequest, begins: bool
    ) -> None:
        self.config, self.train_settings = config, config.train
        self.folder, self.workers, self.stop = folder, workers, stop
        if config.run.tensorboard:
            require_tensorboard()
        self.tensorboard: TensorBoard | None = None  # of the first worker, once the run's folder is there
        self.split = Split.open(config.data.shards, "train")
        require_length(config.train)
        self.validation_split = Split.open(config.data.shards, "validation")
        for split in (self.split, self.validation_split):
            split.require_alignment(config.data.alignment)
        self.device = torch.device(config.run.device)
        self.samples_per_step = config.train.micro_batch * config.train.accumulation * workers.count
        self.progress = Progress(shards=self.split.manifest.fingerprint)
        torch.manual_seed(config.train.seed)  # the random weights
        step = build_step(config, self.split.manifest)
        if begins and config.init.bert:  # a resumed run has its weights in the checkpoint
            self._start_from_bert(step.model)
        self.engine = Engine(step, config.train, config.run, workers.count)
        self.meter, self.watch = TaskMeter(), Stopwatch()
        self.holes: dict[str, str] = {}  # this worker's unreadable samples, and why

    def _start_from_bert(self, model: KaleidoBert) -> None:
        config = self.config
        loaded = start_from_bert(model, Path(config.init.bert), max_tokens=config.data.max_tokens,
                                 shards=config.data.shards)
        self.progress.init = describe_start(config.init.bert, loaded, config.model.layers)
        if self.workers.is_first:
            print(f"init.bert: {self.progress.init}")

    def resume(self) -> None:
        """Go on from the newest checkpoint, or from the start where none was written yet."""
        path = latest_checkpoint(self.folder.checkpoints)
        if path is not None:
            shards = self.progress.shards
            self.progress = Progress(**self.engine.load(path.parent, path.name))
            if self.progress.shards != shards:
                raise ValueError(f"data.shards={self.config.data.shards}: not the shards of {path}; resume with those, or "
                                 "give another run.out")
        if self.workers.is_first:
            self.folder.cut_metrics(self.progress.step)
            self.holes |= self.folder.read_holes()
        self.workers.wait()

    def train(self) -> int:
        """Step until the run's length is reached or a stop is asked for, then save."""
        settings, progress = self.train_settings, self.progress
        length = RunLength(settings, self.samples_per_step, self.split.num_samples, progress.total_steps)
        progress.total_steps = length.total
        loader = Loader(
            self.split, self.config.data, seed=settings.seed, micro_batch=settings.micro_batch, device=self.device,
            worker=self.workers.rank, num_workers=self.workers.count, position=progress.position,
            holes=self.holes,
        )
        if self.config.run.tensorboard and self.workers.is_first:
            self.tensorboard = TensorBoard(self.folder.path, progress.step)
        stopped, saved_at = False, None
        with self._bar() as bar:
            while not stopped and (progress.total_steps is None or progress.step < progress.total_steps):
                with self.watch.waiting():
                    batches = [next(loader) for _ in range(settings.accumulation)]
                stopped = self._step(batches)
                self._stop_past_limit()
                self._measure(length, bar)
                bar.update()
                if self._due(settings.log_every):
                    self._log(bar)
                with self.watch.excluded():
                    if self._due(settings.validate_every):
                        self._validate()
                    if stopped or self._due(settings.checkpoint_every):
                        saved_at = self._save()
        if saved_at != progress.step:
            self._save()
        if self.tensorboard is not None:
            self.tensorboard.close()
        return 128 + self.stop.signal if self.stop.signal else (128 + 15 if stopped else 0)

    def _step(self, batches: list[Batch]) -> bool:
        """One optimizer step; returns whether any worker was asked to stop."""
        own = [self.engine.module.count(batch) for batch in batches]
        names = list(own[0])
        missing = sum(int((~batch.host.present).sum()) for batch in batches)
        totals = np.array([sum(rows[name] for rows in own) for name in names] + [bool(self.stop.signal), missing],
                          np.float64)
        *totals, stops, missing = self.workers.total(totals)
        rate = self._learning_rate()
        for micro, (batch, rows) in enumerate(zip(batches, own, strict=True)):
            result = self.engine(batch, rows, dict(zip(names, totals, strict=True)), self._dropout_key(micro))
            self.engine.backward(result.loss)
            self.engine.step(rate)
            self.meter.add(result, rows)
        self.progress.step += 1
        self.progress.holes += int(missing)
        self.progress.position += self.samples_per_step
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
        return torch.tensor(key, device=self.device)

    def _learning_rate(self) -> float:
        settings, total = self.train_settings, self.progress.total_steps
        warmup = settings.warmup_steps if total is None else fitting_warmup(settings.warmup_steps, total)
        return learning_rate(self.progress.step, total, base=settings.learning_rate, warmup_steps=warmup,
                             schedule=settings.schedule)

    def _measure(self, length: RunLength, bar: tqdm) -> None:
        estimate = length.tick(self.progress.step)
        if estimate is not None:
            length.total = self.progress.total_steps = int(self.workers.from_first(estimate))
            bar.total = length.total
            bar.refresh()

    def _due(self, every: int) -> bool:
        return self.progress.step % every == 0 or self.progress.step == self.progress.total_steps

    def _log(self, bar: tqdm) -> None:
        """Read the meters (this waits for the device) and write one line of metrics.jsonl."""
        report = self.meter.read(self.train_settings.task_weights, self.workers)
        line = {"step": self.progress.step, "samples": self.progress.position, **report,
                "learning_rate": self.engine.optimizer.param_groups[0]["lr"], "grad_norm": self.engine.grad_norm(),
                **self.watch.read()}
        self.meter = TaskMeter()
        if self.workers.is_first:
            self._write(line)
            bar.set_postfix(loss=f"{report['losses']['total']:.2f}", itm=f"{report['losses'].get('itm', 0):.3f}",
                            sps=f"{line['samples_per_s']:.0f}")

    def _validate(self) -> None:
        report = validate(self.engine, self.config, self.validation_split, self.workers, self.device, self.holes)
        if self.workers.is_first:
            self._write({"step": self.progress.step, "validation": report})

    def _write(self, line: dict[str, Any]) -> None:
        self.folder.append_metrics(line)
        if self.tensorboard is not None:
            self.tensorboard.add(line)

    def _save(self) -> int:
        save_checkpoint(self.folder.checkpoints, self.engine, self.workers, asdict(self.progress),
                        self.train_settings.keep_checkpoints)
        self._write_summary()
        return self.progress.step

    def _write_summary(self) -> None:
        holes = self.workers.merged(self.holes)
        if self.workers.is_first:
            self.folder.write_summary(describe_run(self.config, self.split, asdict(self.progress), holes))

    def _bar(self) -> tqdm:
        return tqdm(total=self.progress.total_steps, initial=self.progress.step, desc="pretrain", unit="step",
                    disable=not self.workers.is_first, dynamic_ncols=True)
