"""Whether a GPU's step is shorter than what the host needs to launch it: said at the start, from shapes, before it is felt.

    device = products of the encoder's layers / (40 % of the device's matrix peak), texts of the greatest length
    host   = layers x 1.2 ms + 4 ms

Both are estimates. 40 % is what `estimate` takes the transformer to reach; a peak is a data sheet's for dense bf16, by
multiprocessor. A layer's forward, backward and update took 2.1 ms of CPU time, eager and compiled alike, on tensors of next to
no size and on a busy core of an AMD EPYC (torch 2.13): a quiet one is taken to need a half of it, and two calls of xformers
150 us together. The 4 ms are plan, embedding, heads, losses and the engine. Neither is measured on a GPU yet.

Shapes as in bench/flops.py: L rows a sample, H hidden, I inner width.
"""

import math
from dataclasses import dataclass
from typing import Protocol

from kaleido_fast.kernels.geometry import num_positions
from kaleido_fast.kernels.plan_rules import GROUP
from kaleido_fast.model.embeddings import FRAME
from kaleido_fast.model.settings import ModelSettings
from kaleido_fast.training.settings import StepConfig

SHARE = 0.40  # of a device's matrix peak, reached by the transformer
# TFLOP/s of a multiprocessor by compute capability: A100, A10, L40S, H100 and H200, B200, RTX PRO 6000 Blackwell.
PEAK_BY_CAPABILITY = {(8, 0): 2.89, (8, 6): 1.74, (8, 9): 2.55, (9, 0): 7.49, (10, 0): 15.2, (12, 0): 2.68}
LAYER_MS, STEP_MS = 1.2, 4.0  # of the host


class Device(Protocol):
    """What torch.cuda.get_device_properties tells."""

    name: str
    major: int
    minor: int
    multi_processor_count: int


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Of one micro-batch, in milliseconds."""

    device_ms: float
    host_ms: float

    @property
    def is_host_bound(self) -> bool:
        return self.host_ms > self.device_ms


def step_times(config: StepConfig, device: Device) -> StepTimes | None:
    """The estimate; None where nothing is known: another precision than bf16, features computed in the step, or a device
    whose peak is not in the table."""
    peak = PEAK_BY_CAPABILITY.get((device.major, device.minor))
    if peak is None or config.train.precision != "bf16" or config.model.features != "stored":
        return None
    positions, tokens = num_positions(config.kaleido.grids), config.data.max_tokens
    sequences = [tokens + positions] + ([FRAME + positions, tokens] if config.train.contrasts else [])
    flops = config.train.micro_batch * sum(sample_flops(config.model, rows) for rows in sequences)
    device_ms = flops / (SHARE * peak * device.multi_processor_count) / 1e9
    return StepTimes(device_ms, config.model.layers * LAYER_MS + STEP_MS)


def sample_flops(model: ModelSettings, rows: int) -> float:
    """Of the encoder's products for a sequence of `rows`, forward and backward: layers * 6 * (L (4 H^2 + 2 H I) + 2 L^2 H)."""
    hidden = model.hidden
    return 6 * model.layers * (rows * (4 * hidden**2 + 2 * hidden * model.intermediate) + 2 * rows**2 * hidden)


def host_bound_line(config: StepConfig, device: Device) -> str:
    """What a user should know of too small micro-batches; empty where the device is busy, or where nothing is known."""
    times = step_times(config, device)
    if times is None or not times.is_host_bound:
        return ""
    micro_batch = config.train.micro_batch
    enough = math.ceil(micro_batch * times.host_ms / times.device_ms / GROUP) * GROUP
    waits = 1 - times.device_ms / times.host_ms
    return (f"train.micro_batch={micro_batch}: estimated, a micro-batch keeps {device.name} busy for {times.device_ms:.0f} ms, "
            f"and the host needs {times.host_ms:.0f} ms to launch it, so the GPU waits for {waits:.0%} of a step; from "
            f"train.micro_batch={enough} on it does not: take fewer GPUs or more samples a step")
