"""Sequences that attend is tried on, and what its kernels may err by."""

from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

from kaleido_fast.kernels.attend import attend_backward_reference, attend_reference
from kaleido_fast.kernels.attend_triton import Masks
from tests.kernels.guards import Guards

KEY = torch.tensor([0x0123456789ABCDEF, 7, 65539])
UNIT = {torch.float32: 2.0**-21, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}  # of TF32 thrice; half an ulp of others


@dataclass(frozen=True)
class Case:
    """Sequences of `lengths` rows, `spare` rows behind them."""

    lengths: tuple[int, ...]
    heads: int = 2
    width: int = 32
    words: tuple[int, ...] | None = None  # under the prefix mask
    dropout: float = 0.0
    spare: int = 0
    layer: int = 0
    dtype: torch.dtype = torch.float32
    size: float = 1.0  # of the queries

    def tensors(self) -> tuple[Tensor, Tensor, Masks, Tensor]:
        """qkv, cumulative, masks, and the gradient of the output."""
        generator = torch.Generator().manual_seed(sum(self.lengths) + self.width)
        rows, hidden = sum(self.lengths) + self.spare, self.heads * self.width
        qkv, dout = torch.randn(rows, 3 * hidden, generator=generator), torch.randn(rows, hidden, generator=generator)
        qkv[:, :hidden] *= self.size
        words = None if self.words is None else torch.tensor(self.words, dtype=torch.int32)
        return qkv.to(self.dtype), cumulative(self.lengths), Masks(words, self.dropout, KEY, self.layer), dout.to(self.dtype)


def cumulative(lengths: tuple[int, ...]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).int()


SMALL = {
    "one row, one word": Case((1, 2), words=(1, 1)),
    "ragged, spare rows": Case((5, 33, 2), spare=3),
    "prefix, patches alone and words alone": Case((9, 20, 35), words=(0, 20, 17), spare=2),
    "dropout": Case((3, 37), dropout=0.25, layer=3),
    "prefix and dropout": Case((34, 6), words=(20, 6), dropout=0.1, layer=11),
    "large scores": Case((40,), size=300.0),
}


def assert_right(forward: ModuleType, backward: ModuleType, case: Case) -> None:
    """Output, log sums and gradient against float64, in bounds, every element written, zeros where no sequence is."""
    qkv, ends, masks, dout = case.tensors()
    longest, past = max(case.lengths, default=0), sum(case.lengths)
    truth, true_sums = attend_reference(qkv.double(), case.heads, ends, longest, masks)
    expected, expected_sums = attend_reference(qkv, case.heads, ends, longest, masks)
    with Guards() as guards:
        placed = masks._replace(words=None if masks.words is None else guards.place(masks.words), key=guards.place(masks.key))
        out, log_sums = forward.attend_triton(guards.place(qkv), case.heads, guards.place(ends), longest, placed)
    assert (out.dtype, out.shape, log_sums.dtype, log_sums.shape) == (
        expected.dtype, expected.shape, expected_sums.dtype, expected_sums.shape)
    assert_near(log_sums, true_sums, 2.0**-21 * max(1.0, case.size))
    assert_near(out, truth, UNIT[case.dtype] * max(1.0, case.size / 16))
    with Guards() as guards:
        placed = masks._replace(words=None if masks.words is None else guards.place(masks.words), key=guards.place(masks.key))
        given = (guards.place(x) for x in (dout, qkv, expected, true_sums.float()))
        dqkv = backward.attend_backward_triton(*given, case.heads, guards.place(ends), longest, placed)
    true_gradient = attend_backward_reference(
        dout.double(), qkv.double(), truth, true_sums, case.heads, ends, longest, masks)
    assert (dqkv.dtype, dqkv.shape, dqkv.stride()) == (qkv.dtype, qkv.shape, qkv.stride())
    assert_near(dqkv, true_gradient, 2 * UNIT[case.dtype] * max(1.0, case.size))
    assert not (out[past:].any() or dqkv[past:].any() or log_sums[:, past:].any())


def assert_near(found: Tensor, truth: Tensor, bound: float) -> None:
    """To `bound` of the largest magnitude, which what is summed has."""
    error, most = (found.double() - truth).abs().max(), truth.abs().max()
    assert error <= bound * most, f"error {error:.3e} of {most:.3e}: {error / most:.3e}, at most {bound:.3e}"
