"""softmax_kl against torch's kl_div in float64, and at its edges."""

import math

import pytest
import torch
from torch.nn.functional import kl_div

from kaleido_fast.kernels.softmax_kl import softmax_kl


def _case(rows: int, width: int, dtype=torch.float64, scale: float = 3.0):
    generator = torch.Generator().manual_seed(rows * 1000 + width)
    prediction, target = (scale * torch.randn(rows, width, generator=generator, dtype=torch.float64) for _ in range(2))
    weight = torch.rand(rows, generator=generator)
    return prediction.to(dtype).requires_grad_(), target.to(dtype), weight


@pytest.mark.parametrize(("rows", "width"), [(1, 1), (1, 192), (7, 191), (37, 2048), (0, 5)])
def test_value_and_gradient_in_float64(rows: int, width: int) -> None:
    prediction, target, weight = _case(rows, width)
    loss = softmax_kl(prediction, target, weight)
    plain = prediction.detach().clone().requires_grad_()
    expected = weight * kl_div(plain.log_softmax(1), target.log_softmax(1), reduction="none", log_target=True).sum(1)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    incoming = torch.randn(rows, dtype=torch.float64)
    loss.backward(incoming), expected.backward(incoming)
    torch.testing.assert_close(prediction.grad, plain.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_low_precision_is_as_good_as_its_input(dtype: torch.dtype) -> None:
    prediction, target, weight = _case(9, 192, dtype)
    truth = prediction.detach().double().requires_grad_()
    expected = softmax_kl(truth, target.double(), weight)
    loss = softmax_kl(prediction, target, weight)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)
    loss.sum().backward(), expected.sum().backward()
    assert prediction.grad.dtype == dtype
    bound = 2.0**-8 if dtype == torch.bfloat16 else 1e-6
    assert (prediction.grad.double() - truth.grad).abs().max() <= bound * truth.grad.abs().max()


def test_edges() -> None:
    inf = math.inf
    prediction = torch.tensor([[1e4, -1e4, 0], [2, 2, 2], [0, -inf, 0], [0, 0, -inf]]).requires_grad_()
    target = torch.tensor([[1e4, -1e4, 0], [5, 5, 5], [0, 0, 0], [1, 1, -inf]])
    loss = softmax_kl(prediction, target, torch.ones(4))
    loss = loss.detach()
    assert loss[0] == 0 and loss[1] == 0
    assert loss[2] == inf  # the prediction rules out what the target holds
    assert loss[3] == pytest.approx(0)  # what neither holds costs nothing


def test_a_row_of_weight_zero_is_nothing_whatever_it_holds() -> None:
    prediction = torch.tensor([[math.nan, 1.0], [0.0, 1.0]]).requires_grad_()
    loss = softmax_kl(prediction, torch.tensor([[1.0, 2.0], [3.0, 1.0]]), torch.tensor([0.0, 2.0]))
    loss.sum().backward()
    assert loss[0] == 0 and (prediction.grad[0] == 0).all() and (prediction.grad[1] != 0).all()


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ValueError, match=r"prediction \(37, 192\) and target \(37, 191\) must both be \(M, F\)"):
        softmax_kl(torch.zeros(37, 192), torch.zeros(37, 191), torch.ones(37))
    with pytest.raises(ValueError, match=r"weight \(3,\) must be \(M,\)"):
        softmax_kl(torch.zeros(37, 4), torch.zeros(37, 4), torch.ones(3))


def test_operator_contract_and_compile() -> None:
    prediction, target, weight = _case(3, 5, torch.float32)
    torch.library.opcheck(torch.ops.kaleido_fast.softmax_kl.default, (prediction, target, weight))
