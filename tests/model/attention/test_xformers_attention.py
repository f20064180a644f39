"""The door to xformers: what it picks and gives back (on fake tensors, where the package is there), and what it refuses."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kaleido_fast.model.attention import xformers_attention
from kaleido_fast.model.attention.packed import attention_kernels, packed_attention
from kaleido_fast.model.attention.xformers_attention import joined

needs_xformers = pytest.mark.skipif(
    importlib.util.find_spec("xformers") is None, reason="needs xformers (extra gpu), not installed")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    xformers_attention.kernels.cache_clear(), xformers_attention._fmha.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs the package xformers, which is not installed; `pip install .*'.\[gpu\]'`"):
        attention_kernels("xformers", torch.device("cpu"), torch.float32, 2, 16, 0.0)


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    program = ("import sys, kaleido_fast.model.attention.packed; "
               "sys.exit(any(name.split('.')[0] == 'xformers' for name in sys.modules))")
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


@needs_xformers
def test_the_mask_is_block_diagonal() -> None:
    mask = xformers_attention._mask(torch.tensor([0, 2, 5], dtype=torch.int32), 3)
    theirs = type(mask).from_seqlens([2, 3], device=torch.device("cpu"))
    assert torch.equal(mask.q_seqinfo.seqstart, theirs.q_seqinfo.seqstart) and mask.k_seqinfo is mask.q_seqinfo
    assert mask.q_seqinfo.max_seqlen == theirs.q_seqinfo.max_seqlen


@needs_xformers
def test_xformers_reasons_are_passed_on() -> None:
    with pytest.raises(ValueError, match="has no kernel for torch.float32 and heads of 16 on cpu: .*device=cpu .*"
                                         "or set model.attention=auto"):
        attention_kernels("xformers", torch.device("cpu"), torch.float32, 2, 16, 0.0)


@needs_xformers
def test_what_is_picked_on_a_gpu() -> None:
    """Torch's own flash kernels in 16 bit, cutlass in fp32; shapes as the operator promises them to torch.compile."""
    program = Path(__file__).with_name("fake_gpu_program.py")
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    bf16, fp32 = found["bf16"], found["fp32"]
    assert bf16["kernels"].startswith("fa2F@") and ", fa2B@" in bf16["kernels"]
    assert fp32["kernels"] == "cutlassF-pt, cutlassB-pt"
    for one in (bf16, fp32):
        assert one["out"] == one["operator"] == [24, 4, 64] and one["strides"] == [256, 64, 1]
        assert one["sums"] == one["expected sums"]
    assert bf16["gradient"] == [24, 3, 4, 64] and bf16["dropped"] == [24, 4, 64]
    assert bf16["copies"] == []  # fake kernels write slices of one tensor, as flash-attention's own do and torch's do not
    assert found["fp64"] == "attention=xformers has no torch.float64; set model.attention=auto"
    assert "heads of 30 on cuda:0" in found["odd"] and "set model.attention=auto" in found["odd"]


def test_gradients_that_are_slices_of_one_are_not_copied() -> None:
    """All others are: of three tensors, of one in another order, of slices that lie otherwise."""
    whole = torch.randn(7, 3, 4, 8)
    slices = list(whole.unbind(1))
    one = joined(slices)
    assert torch.equal(one, whole) and one.data_ptr() == whole.data_ptr() and one.stride() == whole.stride()
    wide = torch.randn(7, 3, 4, 16)
    for parts in ([part.clone() for part in slices], slices[::-1], [slices[0], slices[0], slices[2]],
                  [part[..., :8] for part in wide.unbind(1)], [part[1:] for part in slices[:2]] + [slices[2][:6]]):
        copied = joined(parts)
        assert torch.equal(copied, torch.stack(parts, dim=1)) and copied.data_ptr() != parts[0].data_ptr()
    later = [part[2:] for part in slices]
    assert torch.equal(joined(later), whole[2:]) and joined(later).data_ptr() == whole[2:].data_ptr()


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "unit"), [(torch.float32, 2**-18), (torch.bfloat16, 2**-6)])
@needs_xformers
def test_equals_the_reference_on_a_gpu(dtype: torch.dtype, unit: float) -> None:
    torch.manual_seed(0)
    lengths = (119, 70, 1, 95)
    cumulative = torch.tensor([0, *lengths]).cumsum(0).int()
    given, incoming = torch.randn(sum(lengths), 3, 4, 64), torch.randn(sum(lengths), 4, 64)
    ours, truth = given.to("cuda", dtype).requires_grad_(), given.double().requires_grad_()
    out = packed_attention(ours, cumulative.cuda(), 119, (), implementation="xformers")
    expected = packed_attention(truth, cumulative, 119, lengths, implementation="sdpa")
    out.backward(incoming.to(out)), expected.backward(incoming.double())
    torch.testing.assert_close(out.double().cpu(), expected, rtol=0, atol=4 * unit)
    torch.testing.assert_close(ours.grad.double().cpu(), truth.grad, rtol=0, atol=16 * unit)


def test_what_is_installed_and_does_not_load_is_lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_library() -> None:
        raise OSError("libcudart.so.12: cannot open shared object file\nmore")

    xformers_attention.kernels.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(xformers_attention, "_fmha", no_library)
    assert xformers_attention.lacking(torch.device("cuda"), torch.bfloat16, 2, 16, 0.0) == \
        "xformers is installed and does not load: libcudart.so.12: cannot open shared object file"
