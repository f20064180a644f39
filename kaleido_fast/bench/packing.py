"""What packing saves at the length of a title: our own step on short texts, against the same step padded to T.

Padding is done to it: every text gets T rows, plan and losses stay those of the short texts. The goal is that time falls as
FLOPs do: (time padded / time packed) / (FLOPs padded / FLOPs packed).
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from kaleido_fast.bench.flops import step_flops
from kaleido_fast.bench.harness import time_alternating
from kaleido_fast.bench.step_shape import Shape
from kaleido_fast.bench.training_steps import build_counter, drawn_steps
from kaleido_fast.bench.training_ways import OurSteps
from kaleido_fast.data.batches.batch import Batch
from kaleido_fast.data.shards.manifest import Manifest
from kaleido_fast.training.step import PretrainStep

TITLE = (12, 16)  # tokens


def bench_packing(shape: Shape, rounds: int, between: tuple[int, int] = TITLE) -> dict[str, Any]:
    """Times and FLOPs of both.

    Returns:
        {"speed_ratio", "flop_ratio", "share", "packed_ms", "padded_ms" an optimizer step, "padded_to", "text_tokens"}.
    """
    batches, manifest, _ = drawn_steps(shape, between)
    packed = OurSteps(shape, manifest, batches)
    fixed = [with_its_plan(packed.module, batch) for batch in batches]
    padded = [padded_to(batch, shape.data.max_tokens) for batch in fixed]
    ways = {"packed": OurSteps(shape, manifest, fixed), "padded": OurSteps(shape, manifest, padded)}
    times = time_alternating(ways, shape.device, rounds)
    flops = {name: _flops(shape, manifest, its_batches) for name, its_batches in (("packed", fixed), ("padded", padded))}
    speed = times["padded"].median_ms / times["packed"].median_ms
    ratio, steps = flops["padded"] / flops["packed"], len(ways["packed"].groups)
    return {"speed_ratio": speed, "flop_ratio": ratio, "share": speed / ratio, "text_tokens": list(between),
            "padded_to": shape.data.max_tokens, "packed_ms": times["packed"].median_ms / steps,
            "padded_ms": times["padded"].median_ms / steps}


@torch.no_grad()
def with_its_plan(step: PretrainStep, batch: Batch) -> Batch:
    """The batch with the plan that is drawn for it, fixed."""
    plan = step.plan_of(batch)
    masked = (plan.masked_positions >= 0).sum(1).cpu().numpy().astype(np.int32)
    return replace(batch, plan=plan, host=replace(batch.host, num_masked=masked))


def padded_to(batch: Batch, width: int) -> Batch:
    """Every text as long as T."""
    lengths = np.full(len(batch.host.lengths), width, np.int32)
    return replace(batch, lengths=torch.full_like(batch.lengths, width), host=replace(batch.host, lengths=lengths))


def _flops(shape: Shape, manifest: Manifest, batches: list[Batch]) -> float:
    count = build_counter(shape, manifest)
    parts = [step_flops(shape.model, shape.kaleido, manifest.vocabulary.size, batch.host.lengths, count(batch))
             for batch in batches]
    return sum(one.model + one.patch_encoder for one in parts)
