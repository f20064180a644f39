"""softmax_kl as it is compiled for a GPU, run on a CPU: against float64, with a GPU's rounding."""

import pytest
import torch

from kaleido_fast.bench.ptx.driver import EmulatedDevice
from kaleido_fast.kernels import softmax_kl_triton as compiled
from kaleido_fast.kernels.softmax_kl import softmax_kl_reference
from tests.compiled.ptx.cases import SLOW
from tests.kernels import test_softmax_kl_triton as interpreted
from tests.kernels.test_softmax_kl_triton import BF16, EXTREME, FP16, FP32, NAN, assert_near, assert_right, batch


@pytest.mark.parametrize("rows, features, prediction_dtype, target_dtype", [
    (1, 1, FP32, FP32),
    (3, 2, FP32, FP32),
    pytest.param(5, 7, BF16, BF16, marks=SLOW),
    (9, 192, BF16, FP32),
    (8, 192, FP32, BF16),
    (5, 1001, BF16, BF16),
    (2, 2048, BF16, BF16),
    pytest.param(2, 2040, FP16, FP32, marks=SLOW),
    pytest.param(2, 2056, FP32, FP32, marks=SLOW),
    pytest.param(1, 8192, FP32, FP32, marks=SLOW),
])
def test_loss_and_gradient(
    device: EmulatedDevice, rows: int, features: int, prediction_dtype: torch.dtype, target_dtype: torch.dtype
) -> None:
    arguments = batch(rows, features, prediction_dtype, target_dtype)
    assert_right(compiled, *arguments)
    _, gradient = compiled.softmax_kl_triton(*arguments)
    prediction, target = (x.double().softmax(dim=1) for x in arguments[:2])
    truth = arguments[2][:, None] * (prediction - target)
    assert_near(gradient, truth, {FP32: 0, BF16: 2**-8, FP16: 2**-11}[gradient.dtype])  # half an ulp: a device rounds


@pytest.mark.parametrize("weight", [1.5, 0.0, -0.0, NAN])
def test_extreme_rows(device: EmulatedDevice, weight: float) -> None:
    prediction, target = torch.tensor(EXTREME).unbind(dim=1)
    arguments = prediction, target, torch.full((len(EXTREME),), weight)
    found, expected = compiled.softmax_kl_triton(*arguments), softmax_kl_reference(*arguments)
    torch.testing.assert_close(list(found), list(expected), rtol=1e-5, atol=1e-6, equal_nan=True)


def test_equal_distributions_lose_nothing(device: EmulatedDevice) -> None:
    """Their gradient is what one fused multiply and add leaves: the rounding of a probability."""
    logits = torch.tensor([[1.0, 2.0, 4.0, 0.5, -3.0], [0.0] * 5, [1e4] * 5])
    loss, gradient = compiled.softmax_kl_triton(logits + torch.tensor([[64.0], [-3.0], [8.0]]), logits, torch.ones(3))
    assert loss.tolist() == [0, 0, 0] and (gradient.abs() <= 2**-24 * logits.softmax(dim=1)).all()


def test_layouts(device: EmulatedDevice) -> None:
    interpreted.test_rows_apart_turned_repeated_and_half_precision_weights(compiled)


@pytest.mark.slow
def test_far_rows(device: EmulatedDevice) -> None:
    interpreted.test_rows_more_than_two_to_the_31_values_apart(compiled)
