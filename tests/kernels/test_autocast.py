"""The four operators' rule under autocast: nothing is cast. What enters keeps its dtype, and so does what leaves."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from kaleido_fast.kernels.cut import cut
from kaleido_fast.kernels.embed import embed
from kaleido_fast.kernels.softmax_kl import softmax_kl
from tests.kernels.cut_cases import drawn, tasks_of
from tests.kernels.embed_cases import KEY, LEAVES, case, packed_rows
from tests.kernels.plan_cases import plan_of, rules_of

BF16 = torch.bfloat16
DTYPES = [torch.float32, BF16, torch.float64]


def both_ways(function: Callable[[], Any], compiled: bool = False) -> tuple[Any, Any]:
    """What a function returns without autocast, and under it."""
    plain = function()
    with torch.autocast("cpu", BF16):
        return plain, (torch.compile(function, fullgraph=True) if compiled else function)()


def assert_equal(found: Tensor, expected: Tensor) -> None:
    assert found.dtype == expected.dtype and torch.equal(found, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_kl(dtype: torch.dtype) -> None:
    prediction, target = torch.randn(2, 5, 9, generator=torch.Generator().manual_seed(0))
    leaf = prediction.to(dtype).requires_grad_()
    plain, cast = both_ways(lambda: softmax_kl(leaf, target, torch.ones(5)))
    assert_equal(cast, plain)
    gradients = [torch.autograd.grad(loss.sum(), leaf)[0] for loss in (plain, cast)]
    assert_equal(*gradients)
    assert gradients[0].dtype == dtype and plain.dtype == torch.promote_types(dtype, torch.float32)


@pytest.mark.parametrize("dtype, compiled", [*((dtype, False) for dtype in DTYPES), (torch.float32, True)])
def test_embed(dtype: torch.dtype, compiled: bool) -> None:
    """Autocast hands over projected rows in bf16 and parameters as they are; the result is of the widest."""
    inputs = case([4, 3], dtype=dtype)
    inputs = inputs._replace(rows=inputs.rows.detach().to(BF16).requires_grad_())
    arguments = inputs._asdict() | {"num_packed": packed_rows(inputs), "grids": (1, 2), "dropout": 0.2}
    (plain, ends), (cast, cast_ends) = both_ways(lambda: embed(**arguments, dropout_key=KEY), compiled)
    assert_equal(cast, plain)
    assert_equal(cast_ends, ends)
    leaves = [getattr(inputs, name) for name in LEAVES]
    for expected, found, leaf in zip(*(torch.autograd.grad(x.sum(), leaves) for x in (plain, cast)), leaves, strict=True):
        assert_equal(found, expected)
        assert found.dtype == leaf.dtype
    assert plain.dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float32, BF16])
def test_cut(dtype: torch.dtype) -> None:
    images = torch.randint(0, 256, (2, 24, 24, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    tasks = tasks_of((1, 4), 2)
    labels, slots = drawn(2, tasks)
    options = {"grids": (1, 4), "tasks": tasks, "patch_size": 8, "mean": [0.5] * 3, "std": [0.2] * 3, "dtype": dtype}
    plain, cast = both_ways(lambda: cut(images, labels, slots, **options))
    assert_equal(cast, plain)
    assert plain.dtype == dtype


def test_plan(make_batch: Callable[..., dict[str, Tensor]]) -> None:
    batch = make_batch(16)
    for found, expected in zip(*both_ways(lambda: plan_of(batch, rules_of()).tensors), strict=True):
        assert_equal(found, expected)
