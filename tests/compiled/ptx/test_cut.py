"""cut as it is compiled for a GPU, run on a CPU: against the reference in float64, in fp32 and bf16."""

import pytest
import torch

from kaleido_fast.bench.ptx.driver import EmulatedDevice
from kaleido_fast.kernels.cut import cut_reference
from kaleido_fast.kernels.cut_triton import cut_triton
from tests.kernels.cut_cases import tasks_of
from tests.kernels.test_cut_triton import batch, options


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size, side, patch_size, grids, tasks", [
    (4, 24, 16, (1, 2, 4), 2),  # every turn, greys, enlarged
], ids=str)
def test_patches(
    device: EmulatedDevice, size: int, side: int, patch_size: int, grids: tuple[int, ...], tasks: int, dtype: torch.dtype
) -> None:
    rules = tasks_of(grids, tasks)
    tensors, given = batch(size, side, rules), options(grids, patch_size, rules)
    patches = cut_triton(*tensors, **given, dtype=dtype)
    truth = cut_reference(*tensors, **given, dtype=torch.float64)
    bound = 1e-6 * truth.abs().max() + (truth.abs() * 2.0**-8 if dtype == torch.bfloat16 else 0)  # half an ulp: it rounds
    assert patches.dtype == dtype and ((patches.double() - truth).abs() <= bound).all()
