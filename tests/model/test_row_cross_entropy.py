"""The decoder and its loss in pieces against torch's cross entropy of whole logits."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear
from torch.utils._python_dispatch import TorchDispatchMode

from kaleido_fast.kernels.plan_rules import IGNORED
from kaleido_fast.model import row_cross_entropy as module
from kaleido_fast.model.row_cross_entropy import row_cross_entropy

Inputs = tuple[Tensor, Tensor, Tensor, Tensor]


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAST_ROWS", 8)


def inputs(dtype: torch.dtype, rows: int = 21, width: int = 7, words: int = 45, scale: float = 1.0) -> Inputs:
    """A table of 48 rows for 45 words; some rows without a label."""
    torch.manual_seed(0)
    hidden, table, bias = (scale * torch.randn(*shape, dtype=torch.float64) for shape in ((rows, width), (48, width), (words,)))
    labels = torch.randint(0, words, (rows,))
    labels[2::9] = IGNORED
    return *(x.to(dtype).requires_grad_() for x in (hidden, table, bias)), labels


def whole(hidden: Tensor, words: Tensor, bias: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    logits = linear(hidden, words)[:, : len(bias)] + bias
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return cross_entropy(wide, labels, ignore_index=IGNORED, reduction="sum"), (logits.argmax(1) == labels).sum()


def results(function: Any, given: Inputs) -> list[Tensor]:
    leaves = [x.detach().clone().requires_grad_() for x in given[:3]]
    loss, correct = function(*leaves, given[3])
    return [loss, correct, *torch.autograd.grad(loss * 0.3, leaves)]


def test_the_gradient_is_that_of_the_loss() -> None:
    given = inputs(torch.float64, rows=11, width=5, words=13)
    given = (given[0], given[1][:15].detach().requires_grad_(), *given[2:])
    assert torch.autograd.gradcheck(lambda *leaves: row_cross_entropy(*leaves, given[3])[0], given[:3])


@pytest.mark.parametrize("rows", [1, 8, 21])
def test_equals_whole_logits_in_float64(rows: int) -> None:
    given = inputs(torch.float64, rows=rows)
    for ours, theirs in zip(results(row_cross_entropy, given), results(whole, given), strict=True):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("scale", [0.3, 8.0])
def test_errs_no_more_than_whole_logits(dtype: torch.dtype, autocast: bool, scale: float) -> None:
    given = inputs(dtype, rows=100, width=32, scale=scale)
    truth = results(whole, tuple(x.double() if x.is_floating_point() else x for x in given))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        ours, theirs = results(row_cross_entropy, given), results(whole, given)
    unit = torch.finfo(torch.bfloat16 if autocast else dtype).eps
    assert ours[0].dtype == torch.float32 and [x.dtype for x in ours[2:]] == [dtype] * 3
    for own, other, true in zip(ours[:1] + ours[2:], theirs[:1] + theirs[2:], truth[:1] + truth[2:], strict=True):
        size = true.abs().max()
        assert (own - true).abs().max() <= 2 * (other - true).abs().max() + 2 * unit * size
    assert abs(int(ours[1]) - int(theirs[1])) <= 2 * (autocast or dtype == torch.bfloat16)  # ties after rounding


def test_rows_without_a_label_count_nowhere() -> None:
    given = inputs(torch.float64)
    kept = given[3] != IGNORED
    alone = (given[0][kept], given[1], given[2], given[3][kept])
    ours, theirs = results(row_cross_entropy, given), results(row_cross_entropy, alone)
    for place in (0, 1, 3, 4):
        torch.testing.assert_close(ours[place], theirs[place], rtol=1e-12, atol=1e-13)
    assert not ours[2][~kept].any() and ours[2][kept].any()


def test_no_row_is_no_loss_and_no_gradient() -> None:
    given = inputs(torch.float32, rows=0)
    loss, correct, *gradients = results(row_cross_entropy, given)
    assert float(loss) == 0 and int(correct) == 0 and not any(gradient.any() for gradient in gradients)
    assert [x.shape for x in gradients] == [x.shape for x in given[:3]]


class Largest(TorchDispatchMode):
    """The largest tensor that any operation makes."""

    numel = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        out = function(*args, **kwargs or {})
        if isinstance(out, Tensor):
            self.numel = max(self.numel, out.numel())
        return out


def test_logits_are_never_held_as_a_whole() -> None:
    given = inputs(torch.float32, rows=400)
    with Largest() as largest:
        results(row_cross_entropy, given)
    assert largest.numel <= 400 * 8  # the pieces' logits 8 x 48; hidden (400, 7)
    with Largest() as largest:
        results(whole, given)
    assert largest.numel >= 400 * 45


def test_evaluation_makes_no_gradient() -> None:
    given, calls = inputs(torch.float32), []
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(module, "_add_product", lambda *_: calls.append(1))
        loss, correct = row_cross_entropy(*given)
    expected = whole(*given)
    torch.testing.assert_close(loss, expected[0].detach())
    assert not loss.requires_grad and not calls and int(correct) == int(expected[1])


def test_shapes_that_do_not_belong_together_are_refused() -> None:
    hidden, words, bias, labels = inputs(torch.float32)
    with pytest.raises(ValueError, match=r"labels \(20,\) must be \(M,\), one for each of 21 rows"):
        row_cross_entropy(hidden, words, bias, labels[:-1])
    with pytest.raises(ValueError, match=r"hidden \(21, 7\) must be \(M, H\), words \(40, 7\) \(V', H\) with at least the 45"):
        row_cross_entropy(hidden, words[:40], bias, labels)
