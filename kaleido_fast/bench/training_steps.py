"""Steps of pre-training on fixed micro-batches: samples/s, utilisation, memory, where the time goes, and other ways beside it.

No loader, no DeepSpeed: what the device does in a step. torch, triton and NumPy alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from kaleido_fast.bench.batches import CATALOGUE, CatalogueTexts, drawn_lengths, noise_batches
from kaleido_fast.bench.flops import Contrasting, step_flops
from kaleido_fast.bench.harness import Timing, matmul_tflops, time_alternating
from kaleido_fast.bench.step_shape import Shape
from kaleido_fast.bench.training_ways import OURS, WITHOUT_CONTRAST, OurSteps, Steps, check_ways, other_ways, our_steps
from kaleido_fast.data.batches.batch import Batch
from kaleido_fast.data.shards.manifest import Manifest
from kaleido_fast.kernels.geometry import num_positions
from kaleido_fast.model.embeddings import FRAME
from kaleido_fast.parity.drawn_batch import drawn_vocabulary
from kaleido_fast.process_memory import peak_gib

OPTIMIZER_STEPS = 4  # whose micro-batches are held; a round takes each once
ROUNDS = 5
LONGEST = 20  # rows of a profile


@dataclass(frozen=True, slots=True)
class Measuring:
    """How long, and beside what."""

    rounds: int = ROUNDS
    against: tuple[str, ...] = ()  # ways.BASELINES
    tflops: float = 0.0  # the device's peak; 0: a matrix product is measured
    profiled: int = 0  # rounds under torch's profiler


def drawn_steps(
    shape: Shape, between: tuple[int, int] | None = None, steps: int = OPTIMIZER_STEPS, texts: CatalogueTexts | None = None
) -> tuple[list[Batch], Manifest, str]:
    """Micro-batches of `steps` optimizer steps, their vocabulary, and in words where the texts' lengths are from.

    Args:
        between: shortest and longest text, drawn alike often.
        texts: lengths and vocabulary of a catalogue; without both a catalogue's lengths are drawn.
    """
    words = drawn_vocabulary(shape.model.hidden) if texts is None else texts.words
    count = steps * shape.train.samples_per_step(num_workers=1)
    if texts is not None and between is None:
        lengths, source = texts.lengths(count, shape.data.max_tokens), texts.source
    else:
        lengths, source = drawn_lengths(shape, count, between), CATALOGUE
    source = source if between is None else f"drawn: {between[0]} to {between[1]} tokens, all alike often"
    return (noise_batches(shape, words, lengths), Manifest(words, (), (), {}, token_width=shape.data.max_tokens),
            f"{source}; {describe_lengths(lengths)}")


def describe_lengths(lengths: np.ndarray) -> str:
    """In words."""
    return f"median {np.median(lengths):g}, {lengths.min()} to {lengths.max()}"


def bench_steps(
    shape: Shape, manifest: Manifest, batches: Sequence[Batch], measuring: Measuring = Measuring()
) -> dict[str, Any]:
    """Train on the batches in turn with the other ways, on `run.device` in `train.precision`; with contrast also without it.

    Returns:
        figures of ours (`step_figures`), "ways" with the times of all and how much longer than ours, "first_loss",
        "last_loss", "peak_gib", where asked for "profile", and with contrast "times_without_itc".
    """
    check_ways(measuring.against)
    against = measuring.against
    if shape.train.contrasts and WITHOUT_CONTRAST not in against:
        against = (*against, WITHOUT_CONTRAST)
    ours, device = our_steps(shape, manifest, batches), shape.device
    first = float(ours())
    memory = peak_gib(ours, device)  # before the others are there
    ways = {OURS: ours} | other_ways(shape, manifest, batches, ours, against)
    times = time_alternating(ways, device, measuring.rounds)
    figures = step_figures(shape, manifest, batches, times[OURS].median_ms / 1e3, measuring.tflops or _roof(shape))
    table = {name: way_figures(timing, len(ours.groups), timing.median_ms / times[OURS].median_ms)
             for name, timing in times.items()}
    if shape.train.contrasts:
        figures["times_without_itc"] = times[OURS].median_ms / times[WITHOUT_CONTRAST].median_ms
    return figures | {
        "parameters": _parameters(ours), "ways": table, "peak_gib": memory,
        "rounds": measuring.rounds, "first_loss": first, "last_loss": float(ours()),
        "profile": profile_steps(ours, device, measuring.profiled),
    }


def alone_figures(
    shape: Shape, manifest: Manifest, batches: Sequence[Batch], ours: OurSteps, rounds: int
) -> dict[str, Any]:
    """The figures of `bench_steps` for steps that have run once, with no other way beside them; nothing is profiled."""
    first, device = float(ours()), shape.device
    memory = peak_gib(ours, device)
    timing = time_alternating({OURS: ours}, device, rounds)[OURS]
    return step_figures(shape, manifest, batches, timing.median_ms / 1e3, _roof(shape)) | {
        "parameters": _parameters(ours), "ways": {OURS: way_figures(timing, len(ours.groups), 1.0)}, "peak_gib": memory,
        "rounds": rounds, "first_loss": first, "last_loss": float(ours()), "profile": []}


def way_figures(timing: Timing, steps: int, times_ours: float) -> dict[str, float]:
    """Of a way that takes `steps` optimizer steps a call."""
    return {"median_ms": timing.median_ms / steps, "min_ms": timing.min_ms / steps, "max_ms": timing.max_ms / steps,
            "times_ours": times_ours}


def _parameters(ours: OurSteps) -> int:
    return sum(parameter.numel() for parameter in ours.module.parameters())


def step_figures(
    shape: Shape, manifest: Manifest, batches: Sequence[Batch], seconds: float, tflops: float
) -> dict[str, Any]:
    """What `batches` trained in so many `seconds` amount to; `tflops` is the peak that utilisation is a share of."""
    lengths = np.concatenate([batch.host.lengths for batch in batches])
    packed = int(lengths.sum()) + len(lengths) * num_positions(shape.kaleido.grids)
    contrast = _contrasting(shape, batches)
    if contrast is not None:
        packed += int(np.sum(contrast.own_lengths)) + len(lengths) * (FRAME + num_positions(shape.kaleido.grids))
    counter = build_counter(shape, manifest)
    num_rows: dict[str, int] = {}
    for batch in batches:
        for name, count in counter(batch).items():
            num_rows[name] = num_rows.get(name, 0) + count
    flops = step_flops(shape.model, shape.kaleido, manifest.vocabulary.size, lengths, num_rows, contrast)
    return {
        "samples": len(lengths), "micro_batch": shape.train.micro_batch, "accumulation": shape.train.accumulation,
        "precision": shape.train.precision, "text_tokens": {"median": float(np.median(lengths)), "mean": float(lengths.mean())},
        "packed_rows": packed, "samples_per_s": len(lengths) / seconds, "tokens_per_s": packed / seconds,
        "gflops_a_sample": flops.model / len(lengths) / 1e9, "patch_gflops_a_sample": flops.patch_encoder / len(lengths) / 1e9,
        "peak_tflops": tflops, "utilisation": flops.model / seconds / tflops / 1e12,
        "patch_utilisation": flops.patch_encoder / seconds / tflops / 1e12,
    }


def _contrasting(shape: Shape, batches: Sequence[Batch]) -> Contrasting | None:
    """What contrast compares in the batches; None where it is off."""
    own = [batch.own_texts for batch in batches if batch.own_texts is not None]
    if not shape.train.contrasts:
        return None
    return Contrasting(np.concatenate([texts.lengths_host for texts in own]),
                       math.gcd(shape.train.itc_block, shape.train.micro_batch))


def build_counter(shape: Shape, manifest: Manifest) -> Any:
    """Valid rows by loss of a batch."""
    from kaleido_fast.model.counts import RowCounter
    from kaleido_fast.training.build import rules_for

    counter = RowCounter(shape.kaleido, rules_for(shape, manifest), shape.train.losses_on_mismatched, shape.train.contrasts)

    def count(batch: Batch) -> dict[str, int]:
        host = batch.host
        return counter.count(lengths=host.lengths, match=host.match, present=host.present,
                             image_products=host.image_products, num_masked=host.num_masked)

    return count


def _roof(shape: Shape) -> float:
    dtype = torch.bfloat16 if shape.train.precision == "bf16" else torch.float32
    return matmul_tflops(shape.device, dtype, rounds=15)


def profile_steps(call: Steps, device: torch.device, rounds: int) -> list[dict[str, Any]]:
    """The longest operations or kernels, by their own time on the device, ms an optimizer step."""
    if not rounds:
        return []
    kinds = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[kinds.CUDA if device.type == "cuda" else kinds.CPU]) as profile:
        for _ in range(rounds):
            call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    steps = rounds * len(call.groups)
    rows = [SimpleNamespace(name=event.key, us=_own_us(event, device), calls=event.count) for event in profile.key_averages()]
    longest = sorted(rows, key=lambda row: -row.us)[:LONGEST]
    return [{"name": row.name[:120], "ms_a_step": row.us / 1e3 / steps, "calls_a_step": row.calls / steps} for row in longest]


def _own_us(event: Any, device: torch.device) -> float:
    return event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
