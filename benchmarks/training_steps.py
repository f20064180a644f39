"""Steps of pre-training at the base size on synthetic batches: time, memory, and where the device's time goes."""

from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.synthetic import FIRST_ORDINARY, LAST_ORDINARY, MASK, synthetic_batch
from kaleido_fast.model.kaleido_bert import KaleidoBert
from kaleido_fast.model.kaleido_tasks import LOSSES, plan_rules
from kaleido_fast.model.settings import KaleidoSettings, ModelSettings, VocabularySettings
from kaleido_fast.training.step import ClippedAdamW, PretrainStep, parameter_groups

MISMATCHED = ("rotation", "jigsaw", "camouflage")
SLOWEST = 25  # operations of the profile that are kept


@dataclass(frozen=True)
class Shape:
    """The base size; tests take a smaller one."""

    model: ModelSettings = ModelSettings(attention="varlen")
    kaleido: KaleidoSettings = KaleidoSettings()
    vocabulary: VocabularySettings = VocabularySettings()
    image_size: int = 240
    tokens: int = 64
    samples: int = 128


def measure_training(shape: Shape, device: str, steps: int = 10, warm_up: int = 3) -> dict[str, object]:
    """Milliseconds of each step, samples a second, peak memory, the last loss and the slowest operations."""
    run = _step(shape, device)
    for _ in range(warm_up):
        run()
    on_gpu = device == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    times = [_event(on_gpu)]
    for _ in range(steps):
        loss = run()
        times.append(_event(on_gpu))
    last = float(loss)  # waits for the device
    ms = [a.elapsed_time(b) for a, b in zip(times, times[1:])] if on_gpu else []
    with profile(activities=activities) as profiled:
        run()
    return {
        "shape": asdict(shape), "step_ms": ms, "samples_per_s": shape.samples * steps / sum(ms) * 1e3 if ms else None,
        "peak_mib": torch.cuda.max_memory_allocated() / 2**20 if on_gpu else None, "loss": last,
        "slowest": _slowest(profiled, on_gpu),
    }


def _step(shape: Shape, device: str) -> Callable[[], Tensor]:
    torch.manual_seed(0)
    model = KaleidoBert(shape.model, shape.kaleido, shape.vocabulary, shape.image_size)
    rules = plan_rules(
        shape.kaleido, mask_id=MASK, ordinary_first=FIRST_ORDINARY, ordinary_last=LAST_ORDINARY)
    step = PretrainStep(model, rules, 0, dict.fromkeys(LOSSES, 1.0), MISMATCHED).to(device)
    optimizer = ClippedAdamW(parameter_groups(step, 1e-4), max_norm=1.0, lr=2e-5)
    batch = synthetic_batch(shape.samples, shape.tokens, shape.image_size, device)
    rows, key = step.count(batch), torch.zeros(3, dtype=torch.int64, device=device)

    def run() -> Tensor:
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = step(batch, rows, rows, key).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return run


def _event(on_gpu: bool) -> "torch.cuda.Event | None":
    if not on_gpu:
        return None
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _slowest(profiled: profile, on_gpu: bool) -> list[dict[str, object]]:
    key = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    rows = sorted(profiled.key_averages(), key=lambda row: -getattr(row, key))[:SLOWEST]
    return [{"name": row.key, "calls": row.count, "us": getattr(row, key)} for row in rows]
