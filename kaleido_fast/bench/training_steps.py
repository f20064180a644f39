"""Steps of pre-training on a drawn batch: samples/s, memory, and where the time goes. torch and the kernels alone.

No loader, no DeepSpeed: what the device does in a step.
"""

import statistics
import time
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kaleido_fast.data.batch import Batch, HostBatch
from kaleido_fast.model.kaleido_bert import KaleidoBert
from kaleido_fast.model.kaleido_tasks import plan_rules
from kaleido_fast.model.settings import KaleidoSettings, ModelSettings, VocabularySettings
from kaleido_fast.training.settings import TrainSettings
from kaleido_fast.training.step import ClippedAdamW, PretrainStep, parameter_groups

FIRST_WORD = 999


@dataclass(frozen=True, slots=True)
class StepScale:
    """Sizes of the steps; the model's are the base shape (SPEC 7) unless given."""

    samples: int = 256  # B
    tokens: int = 64  # T
    image_size: int = 240
    steps: int = 10
    profiled: int = 3  # further steps under torch's profiler


def bench_steps(device: torch.device, model: ModelSettings, kaleido: KaleidoSettings, scale: StepScale) -> dict[str, Any]:
    """Train on one drawn batch, in bf16 on CUDA and fp32 on a CPU.

    Returns:
        median and spread of the step, samples/s, tokens/s, peak memory, the last loss, and the longest operations.
    """
    torch.manual_seed(0)
    step, optimizer = _build(device, model, kaleido, scale)
    batch = drawn_batch(device, scale)
    rows = step.count(batch)

    def one() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = step(batch, rows, rows, torch.zeros(3, dtype=torch.int64, device=device)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    first = float(one())
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    times = [_timed_ms(one, device) for _ in range(scale.steps)]
    median = statistics.median(times)
    packed = int(batch.host.lengths.sum()) + scale.samples * step.rules.num_positions
    peak = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0
    return {
        "samples": scale.samples, "packed_rows": packed, "parameters": sum(p.numel() for p in step.parameters()),
        "median_ms": median, "min_ms": min(times), "max_ms": max(times), "samples_per_s": scale.samples / median * 1e3,
        "tokens_per_s": packed / median * 1e3, "peak_gib": peak, "first_loss": first, "last_loss": float(one()),
        "profile": _profile(one, device, scale.profiled),
    }


def drawn_batch(device: torch.device, scale: StepScale) -> Batch:
    """Photographs of noise with texts of 16 to T random words, half of them mismatched."""
    draw, count = np.random.default_rng(0), scale.samples
    lengths = draw.integers(16, scale.tokens + 1, count).astype(np.int32)
    tokens = draw.integers(FIRST_WORD, 30000, (count, scale.tokens)).astype(np.int32)
    products = np.arange(count, dtype=np.int64)
    match = draw.random(count) < 0.5
    texts = np.where(match, products, (products + 1) % count)
    present = np.ones(count, bool)

    def up(values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(device)

    images = draw.integers(0, 256, (count, scale.image_size, scale.image_size, 3), dtype=np.uint8)
    keys = draw.integers(-(2**62), 2**62, count)
    return Batch(
        images=up(images), tokens=up(tokens), lengths=up(lengths), alignment=up(np.zeros(tokens.shape, np.int64)),
        keys=up(keys), image_products=up(products), text_products=up(texts), match=up(match), present=up(present),
        epochs=up(np.zeros(count, np.int64)), host=HostBatch(products, products, texts, lengths, match, present),
    )


def _build(
    device: torch.device, model: ModelSettings, kaleido: KaleidoSettings, scale: StepScale
) -> tuple[PretrainStep, ClippedAdamW]:
    if device.type == "cuda":  # what runs in 16 bit there, and has no dropout (SPEC 7)
        model = replace(model, attention="varlen", attention_dropout=0.0)
    network = KaleidoBert(model, kaleido, VocabularySettings(), scale.image_size)
    rules = plan_rules(kaleido, mask_id=103, ordinary_first=FIRST_WORD, ordinary_last=30521)
    step = PretrainStep(network, rules, 0, {}, TrainSettings().losses_on_mismatched).to(device).train()
    return step, ClippedAdamW(parameter_groups(step, 1e-4), max_norm=1.0, lr=1e-5)


def _timed_ms(call: Any, device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    call()
    _wait(device)
    return (time.perf_counter() - start) * 1e3


def _profile(call: Any, device: torch.device, steps: int) -> list[dict[str, Any]]:
    """The twenty longest operations or kernels, by their own time on the device, ms a step."""
    if not steps:
        return []
    kinds = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[kinds.CUDA if device.type == "cuda" else kinds.CPU]) as profile:
        for _ in range(steps):
            call()
        _wait(device)
    rows = [SimpleNamespace(name=event.key, us=_own_us(event, device), calls=event.count)
            for event in profile.key_averages()]
    longest = sorted(rows, key=lambda row: -row.us)[:20]
    return [{"name": row.name[:120], "ms_a_step": row.us / 1e3 / steps, "calls_a_step": row.calls / steps} for row in longest]


def _own_us(event: Any, device: torch.device) -> float:
    return event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
