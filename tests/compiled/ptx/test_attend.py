"""attend as it is compiled for a GPU, forward and backward, run on a CPU: against the reference in float64."""

import pytest
import torch

from kaleido_fast.bench.ptx.driver import EmulatedDevice
from kaleido_fast.kernels import attend_backward_triton as backward, attend_triton as forward
from tests.compiled.ptx.cases import named
from tests.kernels.attend_cases import SMALL, Case, assert_right

BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32
CASES = {
    "bf16, small": Case((2, 7), heads=1, words=(1, 4), dropout=0.1, spare=1, dtype=BF16),
    "bf16, ragged, spare rows": Case((5, 33, 2), heads=1, spare=3, dtype=BF16),
    "bf16, prefix and dropout, heads of 64": Case((34, 6), heads=1, width=64, words=(20, 6), dropout=0.1, layer=11, dtype=BF16),
    "bf16, heads of 128, dropout": Case((35,), heads=1, width=128, dropout=0.1, dtype=BF16),
    "bf16, three blocks of keys": Case((90,), heads=1, width=64, words=(40,), dtype=BF16),
    "bf16, over two groups of rows": Case((150,), heads=1, width=64, dtype=BF16),
    "fp16, heads of 64": Case((20,), heads=1, width=64, dtype=FP16),
    "fp32, prefix and dropout": Case((18, 6), heads=1, words=(9, 6), dropout=0.1, layer=11, spare=1),
    "fp32, heads of 64": Case((18,), heads=1, width=64),
    "fp32, heads of 128": Case((18,), heads=1, width=128),
    "fp32, ragged, spare rows": SMALL["ragged, spare rows"],
}
QUICK = "bf16, small"
ELSEWHERE = (QUICK, "bf16, prefix and dropout, heads of 64", "fp32, prefix and dropout")


@pytest.mark.parametrize("device", [90], indirect=True)
@pytest.mark.parametrize("case", named(CASES, {QUICK}))
def test_output_and_gradient(device: EmulatedDevice, case: Case) -> None:
    """Other masks are tried as interpreted (tests/kernels/test_attend_triton.py)."""
    assert_right(forward, backward, case)


@pytest.mark.slow
@pytest.mark.parametrize("device", [80, 100], indirect=True)
@pytest.mark.parametrize("case", [CASES[name] for name in ELSEWHERE], ids=ELSEWHERE)
def test_on_other_architectures(device: EmulatedDevice, case: Case) -> None:
    assert_right(forward, backward, case)


@pytest.mark.parametrize("device", [90], indirect=True)
def test_tensor_cores_multiply_and_no_other_kind_of_them(device: EmulatedDevice) -> None:
    """mma.sync on every architecture: nothing that an H100 alone has."""
    qkv, ends, masks, _ = Case((20,), heads=1, dtype=BF16).tensors()
    forward.attend_triton(qkv, 1, ends, 20, masks)
    names = {name for launches in device.launches.values() for name in launches.executed if "mma" in name}
    assert names == {"mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"}
