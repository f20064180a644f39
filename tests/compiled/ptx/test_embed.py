"""embed as it is compiled for a GPU, forward and backward, run on a CPU: against the reference in float64."""

import pytest
import torch

from kaleido_fast.bench.ptx.driver import EmulatedDevice
from kaleido_fast.kernels import embed_backward_triton, embed_triton
from kaleido_fast.kernels.embed import embed_reference
from tests.kernels.embed_cases import KEY, assert_near, doubled, kernel_case, rounding
from tests.kernels.test_embed_backward_triton import assert_right as assert_gradients_right

NAMES = ["ragged, spare rows, autocast's dtypes"]
DTYPES = [pytest.param(None, id="fp32"), pytest.param(torch.bfloat16, id="bf16")]  # of the packed rows


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_rows(device: EmulatedDevice, name: str, dtype: torch.dtype | None) -> None:
    inputs, num_packed, grids, dropout = kernel_case(name)
    packed, cumulative = embed_triton.embed_triton(inputs, num_packed, grids, dropout, KEY, dtype)
    truth, ends = embed_reference(doubled(inputs), num_packed, grids, dropout, KEY)
    assert torch.equal(cumulative, ends) and torch.equal(packed == 0, truth == 0)
    assert_near(packed, truth, rounding(packed.dtype) / 2 * 1.0001 * truth.abs(), name)  # half an ulp: a device rounds


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_gradients(device: EmulatedDevice, name: str, dtype: torch.dtype | None) -> None:
    assert_gradients_right(embed_backward_triton, name, dtype)
