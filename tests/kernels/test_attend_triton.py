"""attend's kernels, interpreted in fp32: parity with the reference, bounds, mutations. In 16 bit they are run as compiled
(tests/compiled/ptx/test_attend.py): the interpreter cannot multiply bf16."""

from pathlib import Path

import pytest
import torch

from kaleido_fast.kernels.attend_triton import attend_triton
from tests.compiled.ptx.cases import named
from tests.kernels.attend_cases import SMALL, Case, assert_right
from tests.kernels.interpreter import interpreted
from tests.kernels.mutations import Break, assert_caught

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of rows past a sequence's end
FORWARD, BACKWARD = "attend_triton", "attend_backward_triton"


@pytest.mark.parametrize("case", named(SMALL, {"one row, one word", "ragged, spare rows", "prefix and dropout"}))
def test_output_and_gradient(case: Case) -> None:
    assert_right(interpreted(FORWARD), interpreted(BACKWARD), case)


@pytest.mark.slow
@pytest.mark.parametrize("case", [
    Case((129,), heads=1, words=(70,)), Case((2, 150), heads=1, dropout=0.1), Case((18,), width=64), Case((18,), width=128),
], ids=["prefix over two groups of rows", "dropout over two groups of rows", "heads of 64", "heads of 128"])
def test_longer_and_wider(case: Case) -> None:
    assert_right(interpreted(FORWARD), interpreted(BACKWARD), case)


def test_two_runs_give_equal_bits_and_no_row_without_sequences() -> None:
    qkv, ends, masks, _ = SMALL["ragged, spare rows"].tensors()
    twin = interpreted(FORWARD)
    first, second = (twin.attend_triton(qkv, 2, ends, 33, masks)[0] for _ in range(2))
    assert torch.equal(first, second) and first[:40].all() and not first[40:].any()
    assert not twin.attend_triton(qkv, 2, ends[:1], 0, masks)[0].any()


CHECKED = Case((34, 6), heads=1, words=(20, 6), dropout=0.1, layer=11, spare=1)
FORWARD_BREAKS = [
    Break("scores not scaled", "math.log2(math.e) / math.sqrt(width)", "math.log2(math.e)"),
    Break("words see later words", "(key <= query) & (query < words)", "(query < words)"),
    Break("patches see words", "(key <= query) & (query < words)", "(key <= query)"),
    Break("the sum is not scaled with the maximum", "total = total * before +", "total = total +"),
    Break("the output is not scaled with the maximum", "out * before[:, None], input", "out, input"),
    Break("keys past the end are seen", "inside = key < length", "inside = key >= 0"),
    Break("layers draw alike", "((layer + 1) << 16).to(tl.uint32)", "(layer * 0).to(tl.uint32)"),
    Break("dropped weights leave the sum", "total = total * before + tl.sum(weights, axis=1)",
          "total = total * before + tl.sum(weights * 1.1, axis=1)"),
    Break("spare rows stay as they were", "num_packed - begin, 0)", "0, 0)"),
]
BACKWARD_BREAKS = [
    Break("nothing is taken off", "dscores = weights * (dweights - taken_off[None, :])", "dscores = weights * dweights"),
    Break("nothing is taken off for queries", "(dweights - taken_off[:, None])", "dweights"),
    Break("values get the weights before dropout", "dv = tl.dot(passed.", "dv = tl.dot(weights."),
    Break("queries draw other weights", "kept(begin + query, head, first_key,", "kept(begin + query, head, first_key + 4,"),
    Break("the mask is turned", "seen(query[None, :], key[:, None]", "seen(key[:, None], query[None, :]"),
    Break("keys' gradient is not scaled", "dk * (score_scale / LOG2_E)", "dk"),
]


@pytest.mark.slow
def test_broken_forwards_are_caught(tmp_path: Path) -> None:
    backward = interpreted(BACKWARD)
    assert_caught(FORWARD, FORWARD_BREAKS, lambda twin: assert_right(twin, backward, CHECKED), tmp_path)


@pytest.mark.slow
def test_broken_backwards_are_caught(tmp_path: Path) -> None:
    forward = interpreted(FORWARD)
    assert_caught(BACKWARD, BACKWARD_BREAKS, lambda twin: assert_right(forward, twin, CHECKED), tmp_path)


@pytest.mark.parametrize("heads, dtype, message", [
    (4, torch.float32, "attend: heads of 16, must be of 32, 64, 128 on a GPU; choose another number of them"),
    (2, torch.float64, "attend: qkv is float64, must be fp32 or half precision on a GPU; convert it, or move it to the CPU"),
])
def test_what_no_kernel_is_for_is_refused(heads: int, dtype: torch.dtype, message: str) -> None:
    qkv, ends, masks, _ = SMALL["dropout"].tensors()
    with pytest.raises(ValueError, match=message):
        attend_triton(qkv.to(dtype), heads, ends, 37, masks)
