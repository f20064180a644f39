"""softmax_kl against KL written out in float64, its extreme rows, and the operator's registration."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from kaleido_fast.kernels.softmax_kl import softmax_kl, softmax_kl_reference

OPERATOR = torch.ops.kaleido_fast.softmax_kl.default


def written_out(prediction: Tensor, target: Tensor, weight: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Loss and gradient in NumPy float64, from SPEC 3's words; for moderate logits."""
    p, q = (np.exp(logits.double().numpy()) for logits in (target, prediction))
    p, q = p / p.sum(axis=1, keepdims=True), q / q.sum(axis=1, keepdims=True)
    weight = weight.double().numpy()[:, None]
    return (weight * p * np.log(p / q)).sum(axis=1), weight * (q - p)


def batch(rows: int, features: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows * 1000 + features)
    prediction, target = (2 * torch.randn(2, rows, features, generator=generator)).to(dtype)
    return prediction.clone().requires_grad_(), target.clone(), torch.rand(rows, generator=generator)


@pytest.mark.parametrize("rows, features", [(1, 1), (1, 192), (5, 7), (33, 192), (3, 2048), (0, 192)])
@pytest.mark.parametrize(
    "dtype, error", [(torch.float64, 1e-12), (torch.float32, 2e-6), (torch.bfloat16, 2e-6)]
)
def test_loss_and_gradient_are_the_written_out_ones(
    rows: int, features: int, dtype: torch.dtype, error: float
) -> None:
    prediction, target, weight = batch(rows, features, dtype)
    loss = softmax_kl(prediction, target, weight)
    assert loss.shape == (rows,)
    assert loss.dtype == torch.promote_types(dtype, torch.float32)
    incoming = torch.linspace(-2, 3, rows)
    loss.backward(incoming.to(loss.dtype))
    assert prediction.grad.dtype == dtype and prediction.grad.shape == (rows, features)

    true_loss, true_gradient = written_out(prediction.detach(), target, weight)
    np.testing.assert_allclose(loss.detach().double().numpy(), true_loss, rtol=error, atol=error)
    true_gradient *= incoming.double().numpy()[:, None]
    rounding = 2 * torch.finfo(dtype).eps * np.abs(true_gradient)
    assert np.all(np.abs(prediction.grad.double().numpy() - true_gradient) <= rounding + error)


def test_autograd_of_log_softmax_agrees_in_float64() -> None:
    prediction, target, weight = batch(6, 11, torch.float64)
    softmax_kl(prediction, target, weight).sum().backward()
    other = prediction.detach().clone().requires_grad_()
    logs = other.log_softmax(dim=1), target.log_softmax(dim=1)
    kl = torch.nn.functional.kl_div(*logs, log_target=True, reduction="none")
    (kl.sum(dim=1) * weight).sum().backward()
    torch.testing.assert_close(prediction.grad, other.grad, rtol=1e-12, atol=1e-14)


def test_gradient_is_the_slope_of_the_loss() -> None:
    prediction, target, weight = batch(3, 5, torch.float64)
    assert torch.autograd.gradcheck(lambda logits: softmax_kl(logits, target, weight), prediction)


def test_target_and_weight_get_no_gradient() -> None:
    prediction, target, weight = batch(4, 6)
    target.requires_grad_()
    weight.requires_grad_()
    softmax_kl(prediction, target, weight).sum().backward()
    assert target.grad is None and weight.grad is None
    assert not softmax_kl(prediction.detach(), target.detach(), weight.detach()).requires_grad


def test_equal_distributions_lose_nothing_wherever_their_logits_lie() -> None:
    logits = torch.tensor([[1.0, 2.0, 4.0], [0.0] * 3, [1e4] * 3])
    shift = torch.tensor([[64.0], [-3.0], [8.0]])
    loss, gradient = softmax_kl_reference(logits + shift, logits, torch.ones(3))
    assert loss.tolist() == [0, 0, 0] and not gradient.any()


def test_huge_logits_stay_exact() -> None:
    prediction = torch.tensor([[1e4, -1e4, 0.0], [-1e30, 1e30, 0.0], [3e38, 0.0, -3e38]])
    target = torch.tensor([[-1e4, 1e4, 0.0], [1e30, -1e30, 0.0], [-3e38, 0.0, 3e38]])
    loss, gradient = softmax_kl_reference(prediction, target, torch.tensor([1.0, 1.0, 1.0]))
    assert loss.tolist() == [2e4, pytest.approx(2e30), math.inf]  # the last, 6e38, is beyond fp32
    assert gradient.tolist() == [[1, -1, 0], [-1, 1, 0], [1, 0, -1]]


def test_minus_infinity_is_a_class_of_probability_zero() -> None:
    inf, ln2 = math.inf, math.log(2)
    prediction = torch.tensor([[0.0, 0.0, -inf], [0.0, 0.0, 0.0], [0.0, -inf, 0.0]])
    target = torch.tensor([[0.0, 0.0, -inf], [0.0, 0.0, -inf], [0.0, 0.0, -inf]])
    loss, gradient = softmax_kl_reference(prediction, target, torch.ones(3))
    assert loss.tolist() == [0, pytest.approx(math.log(3) - ln2), inf]
    assert gradient[0].tolist() == [0, 0, 0]
    assert gradient[1].tolist() == pytest.approx([-1 / 6, -1 / 6, 1 / 3])
    assert gradient[2].tolist() == pytest.approx([0, -0.5, 0.5], abs=1e-7)


@pytest.mark.parametrize("broken", [[math.inf, 0.0], [math.nan, 0.0], [-math.inf, -math.inf]])
def test_what_is_no_distribution_is_nan_in_its_own_row_alone(broken: list[float]) -> None:
    good = [0.5, -0.5]
    prediction, target = torch.tensor([broken, good]), torch.tensor([good, good])
    loss, gradient = softmax_kl_reference(prediction, target, torch.ones(2))
    assert loss.isnan().tolist() == [True, False] and gradient.isnan().tolist() == [[True] * 2, [False] * 2]


@pytest.mark.parametrize("held", [0.0, 1e30, math.inf, -math.inf, math.nan])
def test_a_row_of_weight_zero_is_zero_whatever_it_holds(held: float) -> None:
    prediction, target, _ = batch(3, 4)
    with torch.no_grad():
        prediction[1], target[1, :2] = held, held
    loss = softmax_kl(prediction, target, torch.tensor([1.0, 0.0, 2.0]))
    loss.sum().backward()
    assert loss[1] == 0 and not prediction.grad[1].any()
    assert loss[0] > 0 and loss[2] > 0 and prediction.grad[[0, 2]].any(dim=1).all()


def test_nothing_is_clipped() -> None:
    """The authors clip probabilities to [1e-7, 1]; at q = e^-40 that would stop both loss and gradient."""
    prediction, target = torch.tensor([[0.0, -40.0]]), torch.tensor([[-40.0, 0.0]])
    loss, gradient = softmax_kl_reference(prediction, target, torch.ones(1))
    assert loss.item() == pytest.approx(40) and gradient.tolist() == [[1, -1]]


def test_logits_of_different_dtypes_meet_in_fp32() -> None:
    prediction, target, weight = batch(5, 9)
    half = prediction.detach().bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = softmax_kl(half, target, weight)
    loss.sum().backward()
    assert loss.dtype == torch.float32 and half.grad.dtype == torch.bfloat16
    torch.testing.assert_close(loss, softmax_kl(half.detach().float(), target, weight))


def test_non_contiguous_logits() -> None:
    prediction, target, weight = batch(4, 6)
    turned = prediction.detach().T.contiguous().T.requires_grad_()
    wide = torch.stack((target, target + 1), dim=2)[:, :, 0]
    loss = softmax_kl(turned, wide, weight)
    assert torch.equal(loss, softmax_kl(prediction, target, weight))
    torch.library.opcheck(OPERATOR, (turned, wide, weight))


@pytest.mark.parametrize("rows, dtype", [(5, torch.float32), (4, torch.bfloat16), (0, torch.float32)])
def test_the_operator_is_registered_in_full(rows: int, dtype: torch.dtype) -> None:
    torch.library.opcheck(OPERATOR, batch(rows, 7, dtype))


def test_compiled_it_is_one_graph_with_the_same_bits() -> None:
    eager, target, weight = batch(9, 16)
    compiled = eager.detach().clone().requires_grad_()
    loss = softmax_kl(eager, target, weight)
    loss_compiled = torch.compile(softmax_kl, fullgraph=True)(compiled, target, weight)
    loss.sum().backward()
    loss_compiled.sum().backward()
    assert torch.equal(loss, loss_compiled) and torch.equal(eager.grad, compiled.grad)


@pytest.mark.parametrize("change, message", [
    ({"target": torch.zeros(3, 4)}, r"prediction \(3, 5\) and target \(3, 4\) must both be \(M, F\)"),
    ({"prediction": torch.zeros(5), "target": torch.zeros(5)}, r"prediction \(5,\) and target \(5,\) must"),
    ({"weight": torch.zeros(3, 1)}, r"weight \(3, 1\) must be \(M,\), one for each of 3 rows"),
    ({"target": torch.zeros(3, 5, dtype=torch.int64)}, "target is torch.int64, must be floating; convert it"),
    ({"weight": torch.zeros(3, dtype=torch.bool)}, "weight is torch.bool, must be floating; convert it"),
])
def test_messages(change: dict[str, Tensor], message: str) -> None:
    arguments = {"prediction": torch.zeros(3, 5), "target": torch.zeros(3, 5), "weight": torch.zeros(3)}
    with pytest.raises(ValueError, match=f"^softmax_kl: {message}"):
        softmax_kl(**(arguments | change))
