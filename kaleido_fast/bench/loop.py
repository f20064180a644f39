"""The loader alone, and the real training loop beside the same steps on batches that lie on the device already."""

import gc
import json
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from kaleido_fast.bench.step_shape import Shape
from kaleido_fast.bench.training_steps import Measuring, bench_steps, describe_lengths
from kaleido_fast.data.batches.batch import Batch
from kaleido_fast.data.batches.loader import Loader
from kaleido_fast.data.batches.source import BatchSource
from kaleido_fast.data.shards.manifest import Manifest
from kaleido_fast.data.shards.split import Split
from kaleido_fast.process_memory import peak_gib
from kaleido_fast.progress_bar import ProgressBar
from kaleido_fast.training.loop import Loop
from kaleido_fast.training.run.folder import RunFolder
from kaleido_fast.training.settings import RunConfig
from kaleido_fast.training.start import start_pretraining
from kaleido_fast.training.stores.open import open_source
from kaleido_fast.training.workers.group import own_device, start_workers
from kaleido_fast.training.workers.stop import StopRequest

Tell = Callable[[dict[str, Any]], None]

ENDLESS = 1 << 30  # steps, so that no schedule ends inside a measurement
SEGMENTS = 4  # of the loop and of its step alone, in turn


class Kept:
    """Batches of an iterator, and those it gave since they were last looked at."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self._batches, self.seen = batches, list[Batch]()

    def __next__(self) -> Batch:
        self.seen.append(next(self._batches))
        return self.seen[-1]

    def __iter__(self) -> Iterator[Batch]:
        return self


def open_training_source(config: RunConfig) -> BatchSource:
    """Of the training split: its photographs or, under `model.features=stored`, the store.

    Raises:
        ValueError: no shards, or a store that is not there or not of these settings.
    """
    return open_source(config, Split.open(config.data.shards, "train"))


def open_loader(config: RunConfig, source: BatchSource) -> Iterator[Batch]:
    """A source's micro-batches, from the first one on."""
    return Loader(source, config.data, seed=config.train.seed, micro_batch=config.train.micro_batch,
                  device=own_device(config.run.device), own_texts=config.train.contrasts)


def bench_loader(config: RunConfig, steps: int) -> dict[str, Any]:
    """Samples/s of the loader alone, `steps` micro-batches, none of them made before the clock starts.

    Returns:
        {"source", "samples_per_s", "ms_a_batch", "samples", "seconds", "decode_threads", "holes", "first_epoch_samples_per_s"}.
        The last is of stored features as they are read for the first time by a process, which compares them with their CRC32s
        (of `steps` micro-batches too, or as many as an epoch has); None for photographs, and where an epoch is shorter than
        what is made ahead.
    """
    source, size = open_training_source(config), config.train.micro_batch
    first_epoch, ahead = None, config.data.prefetch + 2
    unread = min(steps, source.split.num_samples // size - ahead)
    if config.model.features == "stored" and unread > 0:
        seconds, _ = _timed(open_loader(config, source), ahead, unread, own_device(config.run.device))
        first_epoch = unread * size / seconds
    # From the first block again: what was read above is known by now.
    seconds, holes = _timed(open_loader(config, source), ahead, steps, own_device(config.run.device))
    return {"source": _source(config, source.split.manifest), "samples_per_s": steps * size / seconds,
            "ms_a_batch": seconds / steps * 1e3, "samples": steps * size, "seconds": seconds,
            "decode_threads": config.data.decode_threads, "holes": holes, "first_epoch_samples_per_s": first_epoch}


def _timed(loader: Iterator[Batch], ahead: int, steps: int, device: torch.device) -> tuple[float, int]:
    """Seconds for `steps` micro-batches, and the holes among them.

    Args:
        ahead: micro-batches before the clock starts: those made ahead, and what is built on the first.
    """
    for _ in range(ahead):
        next(loader)
    start, holes = time.perf_counter(), 0
    for _ in range(steps):
        holes += int((~next(loader).host.present).sum())
    _wait(device)
    return time.perf_counter() - start, holes


def bench_loader_steps(config: RunConfig, steps: int, measuring: Measuring) -> dict[str, Any]:
    """`bench_steps` on the first micro-batches of the shards, uploaded once."""
    source = open_training_source(config)
    loader = open_loader(config, source)
    batches = [next(loader) for _ in range(steps * config.train.accumulation)]
    del loader
    gc.collect()
    lengths = torch.cat([batch.lengths for batch in batches]).cpu().numpy()
    texts = {"texts": f"of the shards: {describe_lengths(lengths)}"}
    return texts | bench_steps(Shape.of(config), source.split.manifest, batches, measuring)


def bench_end_to_end(config: RunConfig, steps: int, tell: Tell = lambda figures: None) -> dict[str, Any]:
    """The loop of `kaleido-fast pretrain`, its log included, against itself on the same batches kept on the device.

    Segments of both take turns. One worker; the run's folder is a temporary one; neither validation nor checkpoints.

    Args:
        steps: optimizer steps of each kind, at least one a segment.
        tell: takes what there is after each segment.
    Returns:
        {"source", "samples_per_s", "step_samples_per_s", "step_ms", "share_of_step", "data_wait_share", "steps", "waits",
        "peak_gib"}; "waits" counts those for all work of a GPU (torch.cuda.synchronize) in these steps of the loop, by file.
    """
    stop = StopRequest()
    try:
        with tempfile.TemporaryDirectory() as folder:
            return _end_to_end(_endless(config, Path(folder) / "run"), max(1, steps // SEGMENTS), stop, tell)
    finally:
        stop.release()


def _endless(config: RunConfig, out: Path) -> RunConfig:
    return replace(config, train=replace(config.train, steps=ENDLESS, epochs=0.0, minutes=0.0),
                   run=replace(config.run, out=str(out), tensorboard=False))


def _end_to_end(config: RunConfig, steps: int, stop: StopRequest, tell: Tell) -> dict[str, Any]:
    """`steps` a segment."""
    workers = start_workers(config.run.device, config.run.timeout_s)
    if workers.count > 1:
        raise ValueError(f"bench end-to-end: measures one worker, found {workers.count}; start it without a launcher")
    loop = start_pretraining(config, workers, stop, resume=False)
    loader, lines = Kept(loop.batches), {"loop": list[dict[str, Any]](), "step": list[dict[str, Any]]()}
    metrics, waits = RunFolder(config.run.out).metrics_file, Counter[str]()
    figures: dict[str, Any] = {"source": _source(config, loop.samples.split.manifest)}
    with loop.bar() as bar:
        for segment in range(SEGMENTS):
            for _ in range(config.data.prefetch + 2):  # the first ones build; later the loader was idle and has some ready
                loop.turn(loader)
            loop.log(bar)
            loader.seen.clear()
            with _noting_waits(waits):
                lines["loop"] += _segment(loop, loader, steps, bar, metrics)
            lines["step"] += _segment(loop, iter(list(loader.seen)), steps, bar, metrics)
            whole, alone = (_joined(lines[kind]) for kind in ("loop", "step"))
            figures |= {
                "samples_per_s": whole["samples_per_s"], "step_samples_per_s": alone["samples_per_s"],
                "step_ms": loop.samples_per_step / alone["samples_per_s"] * 1e3,
                "share_of_step": whole["samples_per_s"] / alone["samples_per_s"],
                "data_wait_share": whole["data_wait_share"], "steps": (segment + 1) * steps, "waits": dict(waits),
                "peak_gib": None}
            tell(figures)
        figures["peak_gib"] = peak_gib(lambda: loop.turn(iter(loader.seen)), workers.device)
    tell(figures)
    return figures


@contextmanager
def _noting_waits(waits: Counter[str]) -> Iterator[None]:
    """Inside, waits for all work of the GPU are counted, by the file that asks."""
    synchronize = torch.cuda.synchronize

    def noted(device: Any = None) -> None:
        waits["/".join(Path(traceback.extract_stack(limit=2)[0].filename).parts[-2:])] += 1
        synchronize(device)

    torch.cuda.synchronize = noted
    try:
        yield
    finally:
        torch.cuda.synchronize = synchronize


def _segment(loop: Loop, batches: Iterator[Batch], steps: int, bar: ProgressBar, metrics: Path) -> list[dict[str, Any]]:
    """So many turns with their log; the lines of the run's metrics.jsonl."""
    every, logged = loop.settings.log_every, 0
    for number in range(1, steps + 1):
        loop.turn(batches)
        if number % every == 0 or number == steps:
            loop.log(bar)
            logged += 1
    return [json.loads(line) for line in metrics.read_text("utf-8").splitlines()[-logged:]]


def _joined(lines: list[dict[str, Any]]) -> dict[str, float]:
    seconds = sum(line["seconds"] for line in lines)
    return {key: sum(line[key] * line["seconds"] for line in lines) / seconds for key in ("samples_per_s", "data_wait_share")}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _source(config: RunConfig, manifest: Manifest) -> str:
    if config.model.features == "computed":
        return "photographs"
    return f"store, {config.data.store_dtype}" if manifest.features is None else "the authors' features"
