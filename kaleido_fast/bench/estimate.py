"""What a run will take, before it is launched: parameters, memory a worker, disk for the store, FLOPs, samples/s and days."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from kaleido_fast.bench.batches import drawn_lengths, noise_batch
from kaleido_fast.bench.flops import Contrasting, StepFlops, expected_rows, step_flops
from kaleido_fast.bench.harness import time_alternating
from kaleido_fast.bench.step_shape import Shape
from kaleido_fast.bench.training_ways import our_steps
from kaleido_fast.bench.worker_memory import WorkerMemory, worker_memory
from kaleido_fast.data.shards.manifest import Manifest, Vocabulary
from kaleido_fast.data.shards.split import SPLITS, Split
from kaleido_fast.data.store.feature_store import CRC_BYTES, HEADER_BYTES
from kaleido_fast.data.store.row_format import row_bytes
from kaleido_fast.model.kaleido_tasks import stored_rows
from kaleido_fast.model.patch_encoders.build import build_patch_encoder
from kaleido_fast.model.settings import RANDOM
from kaleido_fast.options import Option, OptionError
from kaleido_fast.parity.drawn_batch import bert_vocabulary
from kaleido_fast.training.build import picked_attention
from kaleido_fast.training.run.host_bound import SHARE
from kaleido_fast.training.settings import StepConfig
from kaleido_fast.training.workers.group import own_device

TFLOPS, MEASURE, PRODUCTS, PHOTOGRAPHS = (Option(name) for name in ("tflops", "measure", "products", "photographs"))
# Of the matrix peak, what a convolutional patch encoder is taken to reach; SHARE: the transformer.
ENCODER_SHARE = 0.20
SAMPLES_LOOKED_AT = 4096  # of a catalogue, for its texts' lengths
TIMED = 5  # rounds of a step, of --measure


@dataclass(frozen=True, slots=True)
class CatalogueSize:
    """What the estimate knows of the data."""

    source: str
    photographs: int  # of all splits: what the store holds
    samples: int  # of the training split
    shards: int
    words: Vocabulary
    lengths: np.ndarray  # (n,) int32 text tokens of some samples, cut to T


@dataclass(frozen=True, slots=True)
class Speed:
    """Samples/s of one worker, and where the figure is from."""

    samples_per_s: float
    source: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """All of it; `describe_estimate` is what the command prints."""

    config: StepConfig
    workers: int
    catalogue: CatalogueSize
    memory: WorkerMemory
    store_bytes: int  # 0 where features are computed
    flops: StepFlops  # of one sample
    speed: Speed | None

    @property
    def samples_seen(self) -> float | None:
        """In the whole run; None where its length is in minutes."""
        train = self.config.train
        if train.minutes:
            return None
        if train.steps:
            return float(train.steps * train.samples_per_step(self.workers))
        return train.epochs * self.catalogue.samples


def estimate(
    config: StepConfig, workers: int, *, products: int = 0, photographs: int = 0, tflops: float = 0.0, measure: bool = False
) -> Estimate:
    """What `config` takes on `workers` workers.

    Args:
        products, photographs: of the catalogue, instead of what `data.shards` holds; 0: not given.
        tflops: matrix peak of a worker's GPU in the run's precision, TFLOP/s; 0: not given.
        measure: time a few steps here instead.
    Raises:
        ValueError: shards that cannot be read, numbers that are not positive, or a device that cannot be measured.
    """
    if workers < 1 or min(products, photographs, tflops) < 0:
        raise OptionError(
            Option("workers"), f"={workers}, ", PRODUCTS, f"={products}, ", PHOTOGRAPHS, f"={photographs}, ",
            TFLOPS, f"={tflops:g}: give at least one worker and no number below zero")
    if tflops and measure:
        raise OptionError(TFLOPS, " and ", MEASURE, ": give one of the two")
    if measure:
        if config.run.device == "cuda" and not torch.cuda.is_available():
            raise OptionError(
                MEASURE, ": run.device=cuda, but no CUDA device was found; give ", TFLOPS,
                ", or for a CPU run.device=cpu train.precision=fp32")
        picked_attention(config, own_device(config.run.device))
    shape, catalogue = Shape.of(config), look_at(config, products, photographs)
    longest = np.full(config.train.micro_batch, config.data.max_tokens, np.int32)
    memory = worker_memory(shape, catalogue.words, longest, workers)
    flops = sample_flops(config, catalogue)
    speed = None
    if measure:
        speed = _measured(shape, catalogue)
    elif tflops:
        speed = _stated(flops, tflops)
    store = store_bytes(config, catalogue) if config.model.features == "stored" else 0
    return Estimate(config, workers, catalogue, memory, store, flops, speed)


def look_at(config: StepConfig, products: int = 0, photographs: int = 0) -> CatalogueSize:
    """The catalogue of data.shards, scaled to the numbers that are given; drawn texts and BERT's vocabulary without shards."""
    width, folder = config.data.max_tokens, config.data.shards
    if not folder:
        words = bert_vocabulary()
        num_samples = photographs or products
        lengths = drawn_lengths(Shape.of(config), SAMPLES_LOOKED_AT)
        source = "no data.shards: drawn text lengths, BERT's vocabulary, one photograph a product, all for training"
        return CatalogueSize(source, num_samples, num_samples, 1, words, lengths)
    manifest = Manifest.read(Path(folder))
    split = Split.open(folder, "train")
    entries = [manifest.splits[name] for name in SPLITS if name in manifest.splits]
    total = sum(sum(entry.samples) for entry in entries)
    scale = 1.0
    if photographs or products:
        scale = photographs / total if photographs else products / sum(entry.products for entry in entries)
    step = max(1, split.num_samples // SAMPLES_LOOKED_AT)
    tokens = split.rows(np.arange(0, split.num_samples, step))["num_tokens"]
    return CatalogueSize(
        f"{folder}{'' if scale == 1 else f', times {scale:.4g}'}", round(total * scale), round(split.num_samples * scale),
        sum(len(entry.shards) for entry in entries), manifest.vocabulary, np.minimum(tokens + 2, width).astype(np.int32))


def store_bytes(config: StepConfig, catalogue: CatalogueSize) -> int:
    """Of the feature store of all photographs; exact for the shards that are there, as many of them for other numbers."""
    width = build_patch_encoder(config.model, config.kaleido).num_features
    block = stored_rows(config.kaleido).num_rows * row_bytes(config.data.store_dtype, width)
    return catalogue.shards * HEADER_BYTES + catalogue.photographs * (block + CRC_BYTES)


def sample_flops(config: StepConfig, catalogue: CatalogueSize) -> StepFlops:
    """Forward and backward of a mean sample of the catalogue (flops.py)."""
    train, lengths = config.train, catalogue.lengths
    loss_rows = expected_rows(config.kaleido, train.losses_on_mismatched, lengths)
    contrast = Contrasting(lengths, train.itc_block) if train.contrasts else None
    flops = step_flops(config.model, config.kaleido, catalogue.words.size, lengths, loss_rows, contrast)
    return StepFlops(*(part / len(lengths) for part in (flops.encoder, flops.embeddings, flops.heads, flops.patch_encoder)))


def _stated(flops: StepFlops, tflops: float) -> Speed:
    """At fixed shares of the peak."""
    seconds = (flops.model / SHARE + flops.patch_encoder / ENCODER_SHARE) / (tflops * 1e12)
    encoder = f", {ENCODER_SHARE:.0%} in the patch encoder" if flops.patch_encoder else ""
    return Speed(1 / seconds, f"assumed: {SHARE:.0%} of {tflops:g} TFLOP/s in the transformer{encoder}")


def _measured(shape: Shape, catalogue: CatalogueSize) -> Speed:
    """The median of a few steps on this device, without a loader and without the other workers."""
    device, train, data = shape.device, shape.train, shape.data
    drawn = replace(shape, model=replace(shape.model, patch_encoder_weights=RANDOM)).with_batch(train.micro_batch)
    lengths = np.random.default_rng(0).choice(catalogue.lengths, train.micro_batch)
    steps = our_steps(drawn, Manifest(catalogue.words, (), (), {}, token_width=data.max_tokens),
                      [noise_batch(drawn, catalogue.words, lengths)])
    seconds = time_alternating({"step": steps}, device, TIMED)["step"].median_ms / 1e3
    return Speed(train.micro_batch / seconds, f"measured here ({device.type}, {torch.get_num_threads()} threads), without "
                 "waiting for data or other workers")


def describe_estimate(result: Estimate) -> str:
    """As the command prints it."""
    config, catalogue, memory, flops = result.config, result.catalogue, result.memory, result.flops
    train, parameters = config.train, memory.step.parameters
    parts = ", ".join(f"{name} {count / 1e6:.1f} M" for name, count in parameters.items() if count)
    batch = train.samples_per_step(result.workers)
    lines = [
        f"catalogue   {catalogue.photographs:,} photographs, {catalogue.samples:,} training samples, texts of "
        f"{catalogue.lengths.mean():.0f} tokens ({catalogue.source})",
        f"parameters  {memory.step.num_parameters / 1e6:.1f} M: {parts}",
        f"batch       {batch:,} samples a step: {_workers(result)} x {train.micro_batch} x {train.accumulation}",
        f"memory      {_size(memory.peak)} a worker at the most, texts of {config.data.max_tokens} tokens, ZeRO stage "
        f"{train.zero_stage}, {train.precision}; libraries' own apart",
        *(f"            {_size(size):>10}  {name}" for name, size in memory.parts.items() if size and name != "peak"),
    ]
    if result.store_bytes:
        num_rows = stored_rows(config.kaleido).num_rows
        lines.append(f"store       {_size(result.store_bytes)} on disk: {num_rows} rows a photograph, "
                     f"{config.data.store_dtype}")
    encoder = f", and {flops.patch_encoder / 1e9:.3g} in the patch encoder" if flops.patch_encoder else ""
    lines.append(f"compute     {flops.model / 1e9:.3g} GFLOP a sample, forward and backward{encoder}")
    return "\n".join([*lines, *_time(result)])


def _time(result: Estimate) -> list[str]:
    speed, seen, train = result.speed, result.samples_seen, result.config.train
    if speed is None:
        return [f"speed       give {TFLOPS.flag} (matrix peak of a worker's GPU) or {MEASURE.flag} (a few steps here)"]
    rate = speed.samples_per_s * result.workers
    lines = [f"speed       {rate:,.0f} samples/s on {_workers(result)}, {speed.source}"]
    if seen is None:
        seen = rate * train.minutes * 60
        epochs = f", {seen / result.catalogue.samples:.3g} epochs" if result.catalogue.samples else ""
        return [*lines, f"time        {train.minutes:g} minutes: {seen:,.0f} samples{epochs}"]
    return [*lines, f"time        {_duration(seen / rate)} for {seen:,.0f} samples" if seen else
            f"time        give data.shards, {PRODUCTS.flag} or {PHOTOGRAPHS.flag}, and a length (train.epochs, train.steps)"]


def _workers(result: Estimate) -> str:
    return "1 worker" if result.workers == 1 else f"{result.workers} workers"


def _duration(seconds: float) -> str:
    """In the largest unit of which there is one."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} seconds"


def _size(count: float) -> str:
    """In a unit that fits."""
    unit = min(int(math.log(max(count, 1), 1024)), 4)
    return f"{count / 1024**unit:.3g} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[unit]}"
