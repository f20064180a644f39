"""softmax_kl as it is compiled for a GPU, run on a CPU: against float64, with a GPU's rounding."""

import pytest
import torch

from kaleido_fast.bench.ptx.driver import EmulatedDevice
from kaleido_fast.kernels import softmax_kl_triton as compiled
from kaleido_fast.kernels.softmax_kl import softmax_kl_reference
from tests.kernels.test_softmax_kl_triton import BF16, EXTREME, FP32, NAN, assert_right, batch


@pytest.mark.parametrize("rows, features, prediction_dtype, target_dtype", [
    (9, 192, BF16, FP32),
    (2, 2048, BF16, BF16),
])
def test_loss_and_gradient(
    device: EmulatedDevice, rows: int, features: int, prediction_dtype: torch.dtype, target_dtype: torch.dtype
) -> None:
    assert_right(compiled, *batch(rows, features, prediction_dtype, target_dtype))


@pytest.mark.parametrize("weight", [1.5, 0.0, NAN])
def test_extreme_rows(device: EmulatedDevice, weight: float) -> None:
    prediction, target = torch.tensor(EXTREME).unbind(dim=1)
    arguments = prediction, target, torch.full((len(EXTREME),), weight)
    found, expected = compiled.softmax_kl_triton(*arguments), softmax_kl_reference(*arguments)
    torch.testing.assert_close(list(found), list(expected), rtol=1e-5, atol=1e-6, equal_nan=True)
