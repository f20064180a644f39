"""AMLM's decoder and its cross entropy in one, a piece of the rows at a time: (M, V) logits are never held as a whole.

    logits = hidden words^T + bias;   loss = sum over labelled rows of log sum_v exp(logits_v) - logits_label
    d loss / d logits = softmax(logits) - one-hot(label)

The forward makes the gradients too, while a piece's logits are at hand, so that nothing is multiplied twice; the backward
scales them by what arrives. Products are taken in autocast's dtype, else in the inputs'; bias, softmax, loss and the sums
over pieces in fp32, in float64 where the inputs are float64.

Shapes: M masked rows, H hidden, V words, V' >= V rows of the padded word table.
"""

from typing import Any

import torch
from torch import Tensor

from kaleido_fast.kernels.plan_rules import IGNORED
from kaleido_fast.model.precision import product_dtype

# Rows of a piece: as many as the table is wide, so that its logits take the memory of the table's gradient, which every
# piece adds to; of a narrow table more, for products large enough to be worth a call.
LEAST_ROWS = 256


def row_cross_entropy(hidden: Tensor, words: Tensor, bias: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cross entropy of the rows' words, summed, and how many words are right.

    Args:
        hidden: (M, H); M may be 0.
        words: (V', H) word table; rows from V on pad it and get no probability.
        bias: (V,).
        labels: (M,) int64 word of each row, IGNORED where none counts.
    Returns:
        loss (), fp32 or float64, differentiable in the first three; right answers () int64.
    Raises:
        ValueError: the shapes do not belong together.
    """
    if hidden.dim() != 2 or words.dim() != 2 or hidden.shape[1] != words.shape[1] or len(bias) > len(words):
        raise ValueError(f"row_cross_entropy: hidden {tuple(hidden.shape)} must be (M, H), words {tuple(words.shape)} (V', H) "
                         f"with at least the {len(bias)} rows of the bias")
    if labels.shape != hidden.shape[:1]:
        raise ValueError(f"row_cross_entropy: labels {tuple(labels.shape)} must be (M,), one for each of {len(hidden)} rows")
    wanted = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (hidden, words, bias))
    return _RowCrossEntropy.apply(hidden, words, bias, labels, product_dtype(hidden), wanted)


class _RowCrossEntropy(torch.autograd.Function):
    """Arguments as above; `dtype` of the products; whether a gradient is `wanted`."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, words: Tensor, bias: Tensor, labels: Tensor, dtype: torch.dtype, wanted: bool
    ) -> tuple[Tensor, Tensor]:
        with torch.autocast(hidden.device.type, enabled=False):
            loss, correct, gradients = _in_pieces(hidden.to(dtype), words.to(dtype), bias, labels, wanted)
        if wanted:
            dtypes = (hidden.dtype, words.dtype, bias.dtype)
            ctx.save_for_backward(*(gradient.to(kind) for gradient, kind in zip(gradients, dtypes, strict=True)))
        ctx.mark_non_differentiable(correct)
        return loss, correct

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dloss: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        return *(gradient * dloss for gradient in ctx.saved_tensors), None, None, None


def _in_pieces(
    hidden: Tensor, words: Tensor, bias: Tensor, labels: Tensor, wanted: bool
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Loss, right answers, and the gradients of hidden, words and bias (empty where none is wanted)."""
    wide = torch.promote_types(hidden.dtype, torch.float32)
    padded = bias.new_full((len(words),), float("-inf"), dtype=wide)
    padded[: len(bias)] = bias
    loss, correct = hidden.new_zeros((), dtype=wide), labels.new_zeros(())
    dhidden: list[Tensor] = []
    dwords, dbias = words.new_empty(0), padded.new_zeros(len(words))
    rows = max(LEAST_ROWS, words.shape[1])
    for piece, label in zip(hidden.split(rows), labels.split(rows), strict=True):
        counted, place = label != IGNORED, label.clamp(min=0)[:, None]
        logits = (piece @ words.T).to(wide).add_(padded)
        correct += (logits.argmax(dim=1) == label).sum()
        log_p = logits.log_softmax(dim=1)
        loss -= torch.where(counted, log_p.gather(1, place)[:, 0], 0).sum()
        if not wanted:
            continue
        gradient = log_p.exp_()
        gradient.scatter_add_(1, place, gradient.new_full((1, 1), -1).expand_as(place))
        dbias.addmv_(gradient.T, counted.to(wide))
        gradient, counted = gradient.to(hidden.dtype), counted[:, None]
        dhidden.append((gradient @ words).mul_(counted))
        dwords = _add_product(dwords, gradient.T, piece * counted, wide)
    return loss, correct, (torch.cat(dhidden) if wanted else hidden[:0], dwords, dbias[: len(bias)])


def _add_product(total: Tensor, left: Tensor, right: Tensor, wide: torch.dtype) -> Tensor:
    """total + left right, in place but for the first, when there is no total yet."""
    if not total.numel():
        return (left @ right).to(wide)
    return total.addmm_(left, right) if left.dtype == wide else total.add_(left @ right)
