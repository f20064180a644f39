"""The colour losses: ours is the operation bit for bit, theirs by the formula and by finite differences."""

import pytest
import torch
from torch import Tensor

from kaleido_fast.kernels.softmax_kl import softmax_kl
from kaleido_fast.model.color_loss import LEAST, color_loss
from kaleido_fast.model.losses import loss_scales

WAYS = [(True, 1), (True, 2), (False, 2)]


def _logits(scale: float, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return scale * torch.randn(6, 9, dtype=dtype), scale * torch.randn(6, 9, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_options_it_is_the_operation_bit_for_bit(dtype: torch.dtype) -> None:
    prediction, target = _logits(4.0, dtype)
    first, second = prediction.clone().requires_grad_(), prediction.clone().requires_grad_()
    ours, plain = color_loss(first, target), softmax_kl(second, target, torch.ones(6))
    ours.sum().backward(), plain.sum().backward()
    assert torch.equal(ours, plain) and torch.equal(first.grad, second.grad)


@pytest.mark.parametrize(("clip", "joined"), WAYS)
@pytest.mark.parametrize("scale", [1.0, 12.0])
def test_equals_its_formula_sample_by_sample(clip: bool, joined: int, scale: float) -> None:
    prediction, target = _logits(scale)
    found = color_loss(prediction, target, clip=clip, num_joined=joined)
    for row in range(6):
        first = row - row % joined
        group = target[first : first + joined].flatten()
        q = (group.exp() / group.exp().sum())[(row - first) * 9 :][:9]
        p = prediction[row].exp() / prediction[row].exp().sum()
        if clip:
            q, p = q.clamp(LEAST, 1), p.clamp(LEAST, 1)
        torch.testing.assert_close(found[row], (q * (q / p).log()).sum())
    assert not clip or scale < 10 or (prediction.softmax(1) < LEAST).any(), "nothing is clipped: nothing tested"


@pytest.mark.parametrize(("clip", "joined"), WAYS)
def test_gradient_by_finite_differences(clip: bool, joined: int) -> None:
    prediction, target = _logits(12.0)
    leaf = prediction.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: color_loss(x, target, clip=clip, num_joined=joined), leaf)


@pytest.mark.parametrize(("clip", "joined"), WAYS)
def test_low_precision_is_computed_in_fp32_and_no_rows_are_no_loss(clip: bool, joined: int) -> None:
    prediction, target = _logits(1.0, torch.bfloat16)
    found = color_loss(prediction, target, clip=clip, num_joined=joined)
    exact = color_loss(prediction.double(), target.double(), clip=clip, num_joined=joined)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-6)
    assert color_loss(prediction[:0], target[:0], clip=clip, num_joined=joined).shape == (0,)


def test_amlm_epsilon_enlarges_its_number_of_rows_alone() -> None:
    rows = {"amlm": 4.0, "itm": 2.0, "jigsaw": 0.0}
    assert loss_scales(rows, {"itm": 3.0}, 0.0) == {"amlm": 0.25, "itm": 1.5, "jigsaw": 1.0}
    assert loss_scales(rows, {"itm": 3.0}, 1.0) == {"amlm": 0.2, "itm": 1.5, "jigsaw": 1.0}
    assert loss_scales({"amlm": 0.0}, {}, 1e-5)["amlm"] * 0.0 == 0.0
