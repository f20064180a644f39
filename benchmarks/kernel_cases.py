"""What the kernel benchmarks time: for each operation its kernel, its baselines, its bytes, and that they agree.

Inputs are larger than a GPU's level-2 cache and drawn for each sample. `moved_bytes` is the floor of DESIGN.md's table:
what must be read once and written once.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from benchmarks.synthetic import RULES, plan_arguments, synthetic_batch
from kaleido_fast.kernels.cut import cut, cut_reference
from kaleido_fast.kernels.embed import embed, embed_reference
from kaleido_fast.kernels.embed_inputs import Inputs
from kaleido_fast.kernels.geometry import num_positions
from kaleido_fast.kernels.plan import plan, plan_reference
from kaleido_fast.kernels.plan_rules import GREY_GRID
from kaleido_fast.kernels.softmax_kl import softmax_kl, softmax_kl_reference

KERNEL, REFERENCE, COMPILED = "kernel", "reference", "compiled"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Sizes:
    """The defaults are what goals are stated for; tests take smaller ones."""

    samples: int = 1024
    image_size: int = 240
    patch_size: int = 48
    tokens: int = 64
    hidden: int = 768
    vocabulary: int = 30528
    masked_rows: int = 65536
    features: int = 2048


@dataclass(frozen=True)
class Case:
    """One operation at one size.

    Args:
        runs: KERNEL, which is the public function, and its baselines; no arguments, one call each.
        goal: share of a copy's bandwidth, and how many times the compiled reference, on any card; None: a time alone.
        bound: how far the kernel may lie from the reference, as a share of the greatest magnitude; 0: bit for bit.
    """

    name: str
    samples: int
    moved_bytes: int
    runs: dict[str, Callable[[], object]]
    goal: tuple[float, float] | None
    bound: float

    def check(self) -> None:
        """Parity comes before any time: raise AssertionError where kernel and reference differ."""
        for got, want in zip(_tensors(self.runs[KERNEL]()), _tensors(self.runs[REFERENCE]()), strict=True):
            error, scale = (got.double() - want.double()).abs().max(), want.double().abs().max()
            assert got.dtype == want.dtype and error <= self.bound * scale, f"{self.name}: differs by {error} of {scale}"


def plan_case(sizes: Sizes, device: str) -> Case:
    """Integers, so exactly equal; its goal is a time, below 100 us for 1,024 samples."""
    batch = synthetic_batch(sizes.samples, sizes.tokens, 1, device)
    arguments = plan_arguments(batch)
    compiled = torch.compile(plan_reference)
    beside = {"text_products": batch.text_products, "match": batch.match}
    return Case(
        "plan", sizes.samples, _nbytes(*arguments.values(), *plan_reference(**arguments, rules=RULES)), {
            KERNEL: lambda: plan(**arguments, **beside, rules=RULES),
            REFERENCE: lambda: plan_reference(**arguments, rules=RULES),
            COMPILED: lambda: compiled(**arguments, rules=RULES),
        }, goal=None, bound=0,
    )


def cut_case(sizes: Sizes, device: str) -> Case:
    """bf16; rounding once may differ by an ulp where the filter's sums do, 2^-7 of the value at most."""
    batch = synthetic_batch(sizes.samples, sizes.tokens, sizes.image_size, device)
    drawn = plan_reference(**plan_arguments(batch), rules=RULES)
    tensors = (batch.images, drawn.rotation, drawn.grey_slots)
    settings = {"grids": RULES.grids, "patch_size": sizes.patch_size, "mean": MEAN, "std": STD, "dtype": torch.bfloat16}
    compiled = torch.compile(cut_reference)
    written = sizes.samples * RULES.num_rows * 3 * sizes.patch_size**2 * 2
    return Case(
        f"cut S={sizes.image_size} P={sizes.patch_size}", sizes.samples, _nbytes(batch.images) + written, {
            KERNEL: lambda: cut(*tensors, **settings),
            REFERENCE: lambda: cut_reference(*tensors, **settings),
            COMPILED: lambda: compiled(*tensors, **settings),
            "57 resizes": lambda: _separate_resizes(*tensors, sizes.patch_size),
        }, goal=(0.70, 3.0), bound=2**-7,
    )


def softmax_kl_case(sizes: Sizes, device: str) -> Case:
    """bf16 logits of ResNet-50's width: both read, the gradient written."""
    generator = torch.Generator(device).manual_seed(0)
    shape = (sizes.masked_rows, sizes.features)
    prediction, target = (torch.randn(shape, generator=generator, device=device).bfloat16() for _ in range(2))
    weight = torch.full(shape[:1], 1 / shape[0], device=device)
    compiled = torch.compile(softmax_kl_reference)
    leaf = prediction.clone().requires_grad_()
    return Case(
        f"softmax_kl F={sizes.features}", sizes.masked_rows, 3 * _nbytes(prediction), {
            KERNEL: lambda: torch.ops.kaleido_fast.softmax_kl(prediction, target, weight),
            REFERENCE: lambda: softmax_kl_reference(prediction, target, weight),
            COMPILED: lambda: compiled(prediction, target, weight),
            "forward and backward": lambda: torch.autograd.grad(softmax_kl(leaf, target, weight).sum(), leaf),
        }, goal=(0.85, 1.1), bound=2**-7,
    )


def embed_case(sizes: Sizes, device: str) -> Case:
    """bf16 tables, no dropout: each packed row is read once from a table or the patches, and written once."""
    inputs, num_packed = _embed_inputs(sizes, device)
    key = torch.zeros(3, dtype=torch.int64, device=device)
    arguments, grids = (inputs, num_packed, RULES.grids, 0.0, key), RULES.grids
    compiled = torch.compile(embed_reference)
    tokens, lengths, *others = inputs
    return Case(
        f"embed H={sizes.hidden}", sizes.samples, 2 * num_packed * sizes.hidden * 2, {
            KERNEL: lambda: embed(tokens, lengths, num_packed, *others, grids=grids, dropout=0.0, dropout_key=key),
            REFERENCE: lambda: embed_reference(*arguments),
            COMPILED: lambda: compiled(*arguments),
        }, goal=(0.85, 1.1), bound=2**-7,
    )


CASES = (plan_case, cut_case, embed_case, softmax_kl_case)


def _embed_inputs(sizes: Sizes, device: str) -> tuple[Inputs, int]:
    batch = synthetic_batch(sizes.samples, sizes.tokens, 1, device)
    drawn = plan_reference(**plan_arguments(batch), rules=RULES)
    generator = torch.Generator(device).manual_seed(0)

    def table(*shape: int) -> Tensor:
        return torch.randn(*shape, sizes.hidden, generator=generator, device=device).bfloat16()

    inputs = Inputs(
        drawn.masked_tokens % sizes.vocabulary, batch.lengths, table(sizes.samples * RULES.num_rows), drawn.source,
        table(RULES.num_positions), table(sizes.vocabulary), table(sizes.tokens), table(),
        *(table(1 + len(RULES.grids)) for _ in range(2)),
    )
    return inputs, int(batch.host.lengths.sum()) + sizes.samples * num_positions(RULES.grids)


def _separate_resizes(images: Tensor, rotation: Tensor, grey_slots: Tensor, patch_size: int) -> list[Tensor]:
    """What a plain pipeline does: a resize a position and a greyed slot; turns and luma are left out."""
    planes = images.permute(0, 3, 1, 2).float()
    size = {"size": (patch_size, patch_size), "mode": "bilinear", "antialias": True}
    mean, std = (torch.tensor(x, device=images.device).view(3, 1, 1) for x in (MEAN, STD))
    cells = [
        planes[:, :, r * side:(r + 1) * side, c * side:(c + 1) * side]
        for grid in RULES.grids for side in (images.shape[1] // grid,) for r in range(grid) for c in range(grid)
    ]
    offset = RULES.num_positions - RULES.blank_grid**2 - GREY_GRID**2
    cells += cells[offset:offset + grey_slots.shape[1]]
    return [((interpolate(cell, **size) / 255 - mean) / std).bfloat16() for cell in cells]


def _tensors(result: object) -> tuple[Tensor, ...]:
    return (result,) if isinstance(result, Tensor) else tuple(result)


def _nbytes(*tensors: Tensor) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
