"""The work that kernels are timed on: inputs larger than a GPU's cache, drawn anew for each sample (DESIGN 'Operations').

A case gives the same work done in several ways: by our operator ("kaleido_fast": Triton on CUDA), by its reference
("eager"), by the reference under torch.compile ("compiled"), and for `cut` by one resize a cell ("resizes").
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from kaleido_fast.bench.harness import Call
from kaleido_fast.kernels.cut import cut, cut_reference
from kaleido_fast.kernels.embed import embed, embed_reference
from kaleido_fast.kernels.embed_inputs import Inputs
from kaleido_fast.kernels.geometry import GRIDS, num_positions
from kaleido_fast.kernels.plan import plan, plan_reference
from kaleido_fast.kernels.plan_outputs import PlanInputs
from kaleido_fast.kernels.softmax_kl import softmax_kl, softmax_kl_reference
from kaleido_fast.kernels.tasks import total_greyed
from kaleido_fast.model.kaleido_tasks import plan_rules
from kaleido_fast.model.settings import KaleidoSettings

MEAN, STD = KaleidoSettings().mean, KaleidoSettings().std
TOKENS, WORDS, POSITIONS = 64, 30528, 512  # T, V and rows of the position table at the base shape
RULES = plan_rules(KaleidoSettings(), mask_id=103, ordinary_first=999, ordinary_last=30521)
CUT_TASKS = tuple(task for task in RULES.tasks if task.effect in ("turn", "grey"))  # those that need pixels
NUM_GREYED = total_greyed(CUT_TASKS)


@dataclass(frozen=True, slots=True)
class KernelCase:
    """One operation at one size."""

    shape: str  # for the table
    floor_bytes: int  # what must be read and written at least
    goal_share: float | None  # of a copy's bandwidth, on an H100; None where time is the goal
    calls: dict[str, Call] = field(repr=False)
    replayed: tuple[str, ...] = ()  # ways that the device does faster than a host launches them: timed as CUDA graphs


@dataclass(frozen=True, slots=True)
class Scale:
    """Sizes of all cases; the defaults are those of the goals."""

    samples: int = 1024  # B
    image_size: int = 240
    patch_size: int = 48
    hidden: int = 768
    rows: int = 65536  # M of softmax_kl
    features: int = 2048  # F
    dtype: torch.dtype = torch.bfloat16


def kernel_cases(device: torch.device, scale: Scale) -> dict[str, Callable[[], KernelCase]]:
    """Makers of the cases by name; a case holds its inputs, so make one, time it, let it go."""
    return {
        "plan": lambda: plan_case(device, scale), "cut": lambda: cut_case(device, scale),
        "embed": lambda: embed_case(device, scale), "embed_backward": lambda: embed_backward_case(device, scale),
        "softmax_kl": lambda: softmax_kl_case(device, scale),
    }


def cut_case(device: torch.device, scale: Scale) -> KernelCase:
    """B photographs to B * (K + G) patches."""
    draw = _generator(device)
    side, patch, samples = scale.image_size, scale.patch_size, scale.samples
    images = torch.randint(0, 256, (samples, side, side, 3), dtype=torch.uint8, device=device, generator=draw)
    turns, first = _integers(draw, 0, 4, samples), _integers(draw, 0, 8, samples)
    labels, slots = torch.stack([turns] * len(CUT_TASKS), dim=1), torch.stack([first, first + 8], dim=1)
    options: dict[str, Any] = {
        "grids": GRIDS, "tasks": CUT_TASKS, "patch_size": patch, "mean": MEAN, "std": STD, "dtype": scale.dtype}
    compiled = torch.compile(cut_reference, dynamic=False)
    values = samples * (num_positions() + NUM_GREYED) * 3 * patch * patch
    return KernelCase(
        f"B={samples} S={side} P={patch}", images.numel() + values * scale.dtype.itemsize, 0.70,
        {"kaleido_fast": lambda: cut(images, labels, slots, **options),
         "eager": lambda: cut_reference(images, labels, slots, **options),
         "compiled": lambda: compiled(images, labels, slots, **options),
         "resizes": lambda: _separate_resizes(images, patch, scale.dtype)},
    )


def _separate_resizes(images: Tensor, patch: int, dtype: torch.dtype) -> Tensor:
    """What a user would write first: a crop and a resize a cell, without turns and greys."""
    planes = images.permute(0, 3, 1, 2).float()
    mean, std = (torch.tensor(x, device=images.device).view(3, 1, 1) for x in (MEAN, STD))
    patches = []
    for grid in GRIDS:
        side = images.shape[1] // grid
        for cell in range(grid * grid):
            top, left = cell // grid * side, cell % grid * side
            crop = planes[:, :, top : top + side, left : left + side]
            resized = interpolate(crop, size=(patch, patch), mode="bilinear", antialias=True)
            patches.append(((resized / 255 - mean) / std).to(dtype))
    patches += patches[-NUM_GREYED:]  # as many rows as the operation makes
    return torch.stack(patches, dim=1)


def softmax_kl_case(device: torch.device, scale: Scale) -> KernelCase:
    """M rows of F logits, with their gradient."""
    draw, shape = _generator(device), (scale.rows, scale.features)
    prediction, target = (torch.randn(shape, device=device, generator=draw).to(scale.dtype) for _ in range(2))
    weight = torch.rand(scale.rows, device=device, generator=draw)
    compiled = torch.compile(softmax_kl_reference, dynamic=False)
    return KernelCase(
        f"M={scale.rows} F={scale.features}", 3 * prediction.numel() * scale.dtype.itemsize, 0.85,
        {"kaleido_fast": lambda: softmax_kl(prediction, target, weight),
         "eager": lambda: softmax_kl_reference(prediction, target, weight),
         "compiled": lambda: compiled(prediction, target, weight)},
    )


def plan_case(device: torch.device, scale: Scale) -> KernelCase:
    """A batch's draws, with two aligned patches a token."""
    draw, samples = _generator(device), scale.samples
    tokens, lengths = _texts(draw, samples)
    bits = torch.randint(5, num_positions(), (2, samples, TOKENS), device=device, generator=draw)
    alignment = (1 << bits[0]) | (1 << bits[1])
    keys = torch.randint(-(2**62), 2**62, (samples,), device=device, generator=draw)
    products = torch.randint(0, samples, (samples,), device=device, generator=draw)
    present = torch.ones(samples, dtype=torch.bool, device=device)
    seed, epochs = torch.tensor(1, device=device), torch.zeros(samples, dtype=torch.int64, device=device)
    compiled = torch.compile(plan_reference, dynamic=False)
    inputs = PlanInputs(tokens, lengths, alignment, keys, products, present, epochs)
    moved = sum(tensor.nbytes for tensor in (*inputs, *plan(inputs, seed, RULES).tensors))
    return KernelCase(
        f"B={samples} T={TOKENS}", moved, None,
        {"kaleido_fast": lambda: plan(inputs, seed, RULES), "eager": lambda: plan_reference(inputs, seed, RULES),
         "compiled": lambda: compiled(inputs, seed, RULES)}, replayed=("kaleido_fast",),
    )


def embed_case(device: torch.device, scale: Scale) -> KernelCase:
    """Texts of 16 to 64 tokens and 55 patches a sample, packed; dropout 0.1."""
    inputs, packed_rows, key = _embed_inputs(device, scale)
    compiled = torch.compile(embed_reference, dynamic=False)
    options: dict[str, Any] = {"grids": list(GRIDS), "dropout": 0.1, "dropout_key": key}
    moved = (2 * packed_rows + TOKENS + num_positions()) * scale.hidden * scale.dtype.itemsize
    return KernelCase(
        f"B={scale.samples} N={packed_rows} H={scale.hidden}", moved, 0.85,
        {"kaleido_fast": lambda: embed(*inputs[:2], packed_rows, *inputs[2:], **options),
         "eager": lambda: embed_reference(inputs, packed_rows, GRIDS, 0.1, key),
         "compiled": lambda: compiled(inputs, packed_rows, GRIDS, 0.1, key)}, replayed=("kaleido_fast", "compiled"),
    )


def embed_backward_case(device: torch.device, scale: Scale) -> KernelCase:
    """The gradients of every table, given that of the packed rows."""
    from kaleido_fast.kernels.embed import embed_backward_reference

    inputs, packed_rows, key = _embed_inputs(device, scale)
    shape = (packed_rows, scale.hidden)
    dpacked = torch.randn(shape, device=device, generator=_generator(device)).to(scale.dtype)
    compiled = torch.compile(embed_backward_reference, dynamic=False)
    operator = torch.ops.kaleido_fast.embed_backward
    moved = (3 * packed_rows + inputs.word.shape[0]) * scale.hidden * scale.dtype.itemsize
    return KernelCase(
        f"B={scale.samples} N={packed_rows} H={scale.hidden}", moved, None,
        {"kaleido_fast": lambda: operator(dpacked, *inputs, list(GRIDS), 0.1, key),
         "eager": lambda: embed_backward_reference(dpacked, inputs, GRIDS, 0.1, key),
         "compiled": lambda: compiled(dpacked, inputs, GRIDS, 0.1, key)},
    )


def _embed_inputs(device: torch.device, scale: Scale) -> tuple[Inputs, int, Tensor]:
    """The tensors, N, and a dropout key."""
    draw, count, hidden = _generator(device), num_positions(), scale.hidden
    tokens, lengths = _texts(draw, scale.samples)
    source = torch.arange(scale.samples * count, device=device, dtype=torch.int32).view(scale.samples, count)
    source = torch.where(torch.rand(source.shape, device=device, generator=draw) < 0.05, -1, source)

    def table(*shape: int) -> Tensor:
        return torch.randn(*shape, device=device, generator=draw).to(scale.dtype)

    inputs = Inputs(
        tokens, lengths, table(scale.samples * count, hidden), source, table(count, hidden), table(WORDS, hidden),
        table(POSITIONS, hidden), table(hidden), table(1 + len(GRIDS), hidden), table(1 + len(GRIDS), hidden),
    )
    return inputs, int(lengths.sum()) + source.numel(), torch.tensor([1, 2, 3], device=device)


def _texts(draw: torch.Generator, samples: int) -> tuple[Tensor, Tensor]:
    """(B, T) ids and (B,) lengths of 16 to T."""
    tokens = torch.randint(999, 30522, (samples, TOKENS), dtype=torch.int32, device=draw.device, generator=draw)
    return tokens, _integers(draw, 16, TOKENS + 1, samples)


def _integers(draw: torch.Generator, low: int, high: int, count: int) -> Tensor:
    return torch.randint(low, high, (count,), dtype=torch.int32, device=draw.device, generator=draw)


def _generator(device: torch.device) -> torch.Generator:
    return torch.Generator(device).manual_seed(0)
