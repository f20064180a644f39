"""Nothing is compiled in the middle of a run: whatever a batch's size, and wherever its tensors begin, a kernel is the same.

Launches go through Triton's own path, which says what it compiles anew for, and end before the code would run.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kaleido_fast.bench.ptx.driver import EmulatedDevice, emulated
from kaleido_fast.kernels import cut, embed, plan, softmax_kl
from kaleido_fast.kernels.cut_triton import cut_triton
from kaleido_fast.kernels.embed_backward_triton import embed_backward_triton
from kaleido_fast.kernels.embed_inputs import Inputs
from kaleido_fast.kernels.embed_triton import embed_triton
from kaleido_fast.kernels.plan_triton import plan_triton
from kaleido_fast.kernels.softmax_kl_triton import softmax_kl_triton
from kaleido_fast.training.pretrain import pretrain
from tests.kernels.cut_cases import tasks_of
from tests.kernels.embed_cases import BF16, KEY, case, packed_rows
from tests.kernels.plan_cases import plan_of, rules_of
from tests.kernels.test_cut_triton import batch as images, options
from tests.kernels.test_embed_backward_triton import incoming
from tests.kernels.test_softmax_kl_triton import batch as logits
from tests.small import small_config

SIZES = (1, 2, 7, 16, 17, 32, 33)  # one, multiples of 16, and others
EMBED = ("_cumulative_kernel", "_text_kernel", "_text_backward_kernel", "_runs_kernel", "_join_kernel")
OF_LEVELS = ("_patch_kernel", "_patch_backward_kernel")  # each set of levels has its own


@pytest.fixture
def idle() -> Iterator[EmulatedDevice]:
    with emulated(90, run=False) as device:
        yield device


def elsewhere(x: Tensor) -> Tensor:
    """The same values, from an address that is no multiple of 16 bytes."""
    if not x.numel():
        return x
    moved = x.new_empty(x.numel() + 1)[1:].view(x.shape).copy_(x)
    assert moved.is_contiguous() and moved.data_ptr() % 16
    return moved


@pytest.fixture(params=[pytest.param(lambda x: x, id="aligned"), pytest.param(elsewhere, id="slices")])
def moved(request: pytest.FixtureRequest) -> Callable[[Tensor], Tensor]:
    return request.param


def test_softmax_kl(idle: EmulatedDevice, moved: Callable[[Tensor], Tensor]) -> None:
    for rows in SIZES:
        arguments = logits(rows, 192, BF16)
        softmax_kl_triton(*arguments)
        softmax_kl_triton(*map(moved, arguments))
    assert idle.variants == {"_softmax_kl_kernel": 1}


def test_one_row_says_nothing_of_the_next(idle: EmulatedDevice) -> None:
    prediction, target, weight = logits(4, 192)
    softmax_kl_triton(prediction, target, weight)
    for stride in (0, 5, 192):
        softmax_kl_triton(prediction.as_strided((1, 192), (stride, 1)), target[:1], weight[:1])
    assert idle.variants == {"_softmax_kl_kernel": 1}


def test_plan(
    idle: EmulatedDevice, moved: Callable[[Tensor], Tensor], make_batch: Callable[..., dict[str, Tensor]]
) -> None:
    for size in SIZES:
        batch = make_batch(size, num_tokens=24)
        plan_of(batch, rules_of(), plan_triton)
        plan_of({name: moved(x) for name, x in batch.items()}, rules_of(), plan_triton)
    assert idle.variants == {"plan_kernel": 1}


def test_cut(idle: EmulatedDevice, moved: Callable[[Tensor], Tensor]) -> None:
    tasks = tasks_of((1, 4), 2)
    for size in SIZES:
        tensors = images(size, 24, tasks)
        cut_triton(*tensors, **options((1, 4), 16, tasks))
        cut_triton(*map(moved, tensors), **options((1, 4), 16, tasks))
    assert idle.variants == {"cut_kernel": 1}


@pytest.mark.parametrize("own_constants", [False, True])
def test_embed_and_its_gradients(idle: EmulatedDevice, moved: Callable[[Tensor], Tensor], own_constants: bool) -> None:
    """Also where the text is cut to the longest of a batch, and where spare rows follow."""
    for size in SIZES:
        lengths, grids = [2 + number % (1 + size) for number in range(size)], (1, 2)
        made = case(lengths, grids, width=max(lengths), hidden=24, own_constants=own_constants, dtype=torch.float32)
        for move in (lambda x: x, moved):
            inputs = Inputs(*(move(x.detach()) for x in made))
            num_packed = packed_rows(inputs) + size % 3
            embed_triton(inputs, num_packed, grids, 0.1, move(KEY))
            embed_backward_triton(move(incoming(num_packed, inputs)), inputs, grids, 0.1, move(KEY))
    assert idle.variants == dict.fromkeys(EMBED + OF_LEVELS, 1)


def test_levels_alone_share_the_kernels_of_the_text(idle: EmulatedDevice) -> None:
    for grids in ((1,), (1, 2), (4,), ()):
        inputs = Inputs(*(x.detach() for x in case([3, 2] * 9, grids, hidden=24, dtype=torch.float32)))
        num_packed = packed_rows(inputs)
        embed_triton(inputs, num_packed, grids, 0.1, KEY)
        embed_backward_triton(incoming(num_packed, inputs), inputs, grids, 0.1, KEY)
    assert {idle.variants[name] for name in EMBED} == {1}


def test_a_run_compiles_each_kernel_once(
    idle: EmulatedDevice, tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the loop hands to the operators: each call is launched too, and its reference gives the values."""
    def launches(owner: Any, name: str, launch: Callable[..., Any]) -> None:
        reference = getattr(owner, name)

        def both(*arguments: Any, **settings: Any) -> Any:
            launch(*arguments, **settings)
            return reference(*arguments, **settings)

        monkeypatch.setattr(owner, name, both)

    launches(plan, "plan_reference", plan_triton)
    launches(cut, "cut_reference", cut_triton)
    launches(embed, "embed_reference", embed_triton)
    launches(embed, "embed_backward_reference", embed_backward_triton)
    launches(softmax_kl, "softmax_kl_reference", softmax_kl_triton)
    config = small_config(tiny_shards, tmp_path / "run", "train.steps=6", "train.validate_every=3", "model.dropout=0",
                          "data.alignment=truth", "train.precision=bf16")
    assert pretrain(config) == 0
    once = dict.fromkeys((*EMBED, *OF_LEVELS, "plan_kernel", "cut_kernel", "_softmax_kl_kernel"), 1)
    assert idle.variants == once | {"_runs_kernel": 2, "_join_kernel": 2}  # for fp32 words and for bf16 rows
