"""attend: attention of each packed sequence with itself (SPEC 7 and 11), and its gradient.

    s_ij = q_i k_j / sqrt(D),   p_ij = exp(s_ij - log sum_i) where i sees j, 0 elsewhere,   out_i = sum_j d_ij p_ij v_j
    dp_ij = d_ij dout_i v_j,    ds_ij = p_ij (dp_ij - dout_i out_i)
    dq_i = sum_j ds_ij k_j / sqrt(D),   dk_j = sum_i ds_ij q_i / sqrt(D),   dv_j = sum_i d_ij p_ij dout_i

A sequence holds its words, then its patches. Under the full mask every row sees every row; under the prefix mask a patch sees
the patches, and word i the patches and the words up to i. Dropout d_ij is 0 or 1 / (1 - rate): Philox-4x32-10 with key = seed
and counter = (e >> 2 (low, high + (layer + 1) * 65536), step, stream), e = (row of the packed query * A + head) * 512 + place
of the key; dropped where word e & 3 lies below round(rate * 2^32). The backward draws it again; nothing is kept for it.
fp32 inside, float64 (on the CPU alone) where qkv is; the result is rounded once, to the dtype of qkv.

Shapes: B sequences, N packed rows, A heads, D width of a head, H = A * D.
"""

from typing import Protocol

import torch
from torch import Tensor

from kaleido_fast.kernels.attend_backward_triton import attend_backward_triton
from kaleido_fast.kernels.attend_triton import MOST_KEYS, Masks, attend_triton
from kaleido_fast.kernels.philox import philox

Forward = tuple[Tensor, Tensor, Tensor | None, Tensor, int, int, float, int]  # as the operators take them


def attend_reference(qkv: Tensor, heads: int, cumulative: Tensor, longest: int, masks: Masks) -> tuple[Tensor, Tensor]:
    """`attend` in plain PyTorch, a sequence at a time: the CPU path, and the truth for kernels.

    Returns:
        out (N, H), and the logarithm of each row's sum (A, N) fp32 or float64; both 0 past the last sequence.
    """
    num_packed, hidden = len(qkv), qkv.shape[1] // 3
    out, log_sums = qkv.new_zeros(num_packed, hidden), qkv.new_zeros((heads, num_packed), dtype=_wide(qkv))
    for number, rows in enumerate(_sequences(cumulative)):
        query, key, value = _by_head(qkv[rows], heads, 3)
        scores = _scores(query, key, masks, number)
        log_sums[:, rows] = scores.logsumexp(dim=2)
        weights = (scores - log_sums[:, rows, None]).exp() * _factors(masks, rows, heads, query)
        out[rows] = (weights @ value).transpose(0, 1).flatten(1).to(out.dtype)
    return out, log_sums


def attend_backward_reference(
    dout: Tensor, qkv: Tensor, out: Tensor, log_sums: Tensor, heads: int, cumulative: Tensor, longest: int, masks: Masks
) -> Tensor:
    """The gradient of `attend_reference` (N, 3 H), given that of its output (N, H) and what it gave."""
    dqkv = torch.zeros_like(qkv, memory_format=torch.contiguous_format)
    for number, rows in enumerate(_sequences(cumulative)):
        (query, key, value), (dresult,), (result,) = (
            _by_head(x[rows], heads, parts) for x, parts in ((qkv, 3), (dout, 1), (out, 1)))
        scores = _scores(query, key, masks, number)
        weights, factors = (scores - log_sums[:, rows, None]).exp(), _factors(masks, rows, heads, query)
        dweights = dresult @ value.transpose(1, 2) * factors
        dscores = weights * (dweights - (dresult * result).sum(dim=2, keepdim=True)) / query.shape[2] ** 0.5
        gradients = dscores @ key, dscores.transpose(1, 2) @ query, (weights * factors).transpose(1, 2) @ dresult
        dqkv[rows] = torch.stack(gradients).permute(2, 0, 1, 3).flatten(1).to(dqkv.dtype)
    return dqkv


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _sequences(cumulative: Tensor) -> list[slice]:
    ends = cumulative.tolist()
    return [slice(begin, end) for begin, end in zip(ends, ends[1:], strict=False)]


def _by_head(rows: Tensor, heads: int, parts: int) -> Tensor:
    """(L, parts * H) -> (parts, A, L, D), as wide as is computed in."""
    return rows.view(len(rows), parts, heads, -1).permute(1, 2, 0, 3).to(_wide(rows))


def _scores(query: Tensor, key: Tensor, masks: Masks, number: int) -> Tensor:
    """(A, L, L), -inf where the query does not see the key."""
    scores = query @ key.transpose(1, 2) / query.shape[2] ** 0.5
    if masks.words is None:
        return scores
    place, words = torch.arange(query.shape[1], device=query.device), masks.words[number]
    visible = (place >= words) | ((place <= place[:, None]) & (place[:, None] < words))
    return scores.masked_fill(~visible, -float("inf"))


def _factors(masks: Masks, rows: slice, heads: int, like: Tensor) -> Tensor:
    """(A, L, L): 0 for a weight that is dropped, 1 / (1 - rate) for others."""
    length = like.shape[1]
    if not masks.dropout:
        return like.new_ones(1, 1, 1)
    query = torch.arange(rows.start, rows.stop, device=like.device)[:, None]
    first = (query * heads + torch.arange(heads, device=like.device)) * (MOST_KEYS // 4)
    counter = first.t()[:, :, None] + torch.arange((length + 3) // 4, device=like.device)
    key, high = masks.key, (counter >> 32) + (masks.layer + 1) * 65536
    words = torch.stack(philox(key[0], key[0] >> 32, counter, high, key[1], key[2]), dim=3).flatten(2)[..., :length]
    return (words >= round(masks.dropout * 2**32)).to(like.dtype) / (1 - masks.dropout)


@torch.library.custom_op("kaleido_fast::attend", mutates_args=(), device_types="cpu")
def _attend_op(
    qkv: Tensor, cumulative: Tensor, words: Tensor | None, key: Tensor, heads: int, longest: int, dropout: float, layer: int
) -> tuple[Tensor, Tensor]:
    _check_values(qkv, cumulative, words, longest)
    return attend_reference(qkv, heads, cumulative, longest, Masks(words, dropout, key, layer))


@torch.library.custom_op("kaleido_fast::attend_backward", mutates_args=(), device_types="cpu")
def _attend_backward_op(
    dout: Tensor, out: Tensor, log_sums: Tensor, qkv: Tensor, cumulative: Tensor, words: Tensor | None, key: Tensor, heads: int,
    longest: int, dropout: float, layer: int,
) -> Tensor:
    return attend_backward_reference(dout, qkv, out, log_sums, heads, cumulative, longest, Masks(words, dropout, key, layer))


@_attend_op.register_kernel("cuda")
def _attend_cuda(
    qkv: Tensor, cumulative: Tensor, words: Tensor | None, key: Tensor, heads: int, longest: int, dropout: float, layer: int
) -> tuple[Tensor, Tensor]:
    return attend_triton(qkv, heads, cumulative, longest, Masks(words, dropout, key, layer))


@_attend_backward_op.register_kernel("cuda")
def _attend_backward_cuda(
    dout: Tensor, out: Tensor, log_sums: Tensor, qkv: Tensor, cumulative: Tensor, words: Tensor | None, key: Tensor, heads: int,
    longest: int, dropout: float, layer: int,
) -> Tensor:
    return attend_backward_triton(dout, qkv, out, log_sums, heads, cumulative, longest, Masks(words, dropout, key, layer))


@_attend_op.register_fake
def _attend_fake(
    qkv: Tensor, cumulative: Tensor, words: Tensor | None, key: Tensor, heads: int, longest: int, dropout: float, layer: int
) -> tuple[Tensor, Tensor]:
    return qkv.new_empty((qkv.shape[0], qkv.shape[1] // 3)), qkv.new_empty((heads, qkv.shape[0]), dtype=_wide(qkv))


@_attend_backward_op.register_fake
def _attend_backward_fake(dout: Tensor, out: Tensor, log_sums: Tensor, qkv: Tensor, *_: object) -> Tensor:
    return qkv.new_empty(qkv.shape)


class _Kept(Protocol):
    """What autograd keeps of a forward for its backward."""

    saved_tensors: tuple[Tensor, ...]
    options: tuple[int, int, float, int]  # heads, longest, dropout, layer

    def save_for_backward(self, *tensors: Tensor | None) -> None: ...
    def mark_non_differentiable(self, *tensors: Tensor) -> None: ...
    def set_materialize_grads(self, value: bool) -> None: ...


def _save(ctx: _Kept, inputs: Forward, output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*output, *inputs[:4])
    ctx.options = inputs[4:]
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx: _Kept, dout: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    nothing = (None,) * 7
    return (None if dout is None else _attend_backward_op(dout, *ctx.saved_tensors, *ctx.options), *nothing)


_attend_op.register_autograd(_backward, setup_context=_save)


def attend(
    qkv: Tensor, cumulative: Tensor, *, heads: int, longest: int, words: Tensor | None = None, dropout: float = 0.0,
    dropout_key: Tensor | None = None, layer: int = 0,
) -> Tensor:
    """Attention of each sequence with itself; differentiable in qkv.

    Args:
        qkv: (N, 3 H) queries, keys and values of all heads; bf16, fp16, fp32 or float64. On a GPU no float64, and D of
            32, 64 or 128.
        cumulative: (B + 1,) int32, where sequences begin, from 0; rows from the last number on belong to none.
        heads: A, a divisor of H.
        longest: length of the longest sequence, known to the host; at most 512.
        words: (B,) int32, how many rows of each sequence are words, under the prefix mask; None: the full mask.
        dropout: rate of the weights that are dropped, in [0, 1).
        dropout_key: (3,) int64: seed, step, stream; on the tensors' device; may be absent without dropout.
        layer: number of the layer, below 32,767, so that layers draw apart.
    Returns:
        (N, H), in qkv's dtype; 0 in rows of no sequence.
    Raises:
        ValueError: a shape, dtype or length does not fit, or a GPU cannot take it.
    """
    if qkv.dim() != 2 or not qkv.is_floating_point() or qkv.shape[1] % (3 * heads):
        raise ValueError(f"attend: qkv {tuple(qkv.shape)} {qkv.dtype} must be (N, 3 * {heads} * D) floating, for heads={heads}")
    if longest > MOST_KEYS:
        raise ValueError(f"attend: a sequence of {longest} rows, at most {MOST_KEYS}; cut the text, or use another attention")
    sequences = {"cumulative": cumulative} if words is None else {"cumulative": cumulative, "words": words}
    for name, tensor in sequences.items():
        expected = (len(cumulative) - (name == "words"),)
        if tensor.dtype != torch.int32 or tuple(tensor.shape) != expected or not len(cumulative):
            raise ValueError(f"attend: {name} {tuple(tensor.shape)} {tensor.dtype} must be int32, cumulative (B + 1,) and "
                             "words (B,)")
    if not 0 <= dropout < 1 or not 0 <= layer < 2**15 - 1:
        raise ValueError(f"attend: dropout={dropout} must be in [0, 1) and layer={layer} in 0..32,766")
    if dropout_key is None:
        if dropout:
            raise ValueError(f"attend: dropout={dropout} needs a dropout_key: seed, step and stream, (3,) int64")
        dropout_key = cumulative  # nothing reads it
    return _attend_op(qkv, cumulative, words, dropout_key, heads, longest, dropout, layer)[0]


def _check_values(qkv: Tensor, cumulative: Tensor, words: Tensor | None, longest: int) -> None:
    """Refuse lengths out of range; for tensors in the host's memory, where looking costs nothing."""
    lengths = cumulative.diff()
    if int(cumulative[0]) or (lengths < 0).any() or (lengths > longest).any() or int(cumulative[-1]) > len(qkv):
        raise ValueError(f"attend: cumulative must rise from 0 by at most longest={longest}, to at most N={len(qkv)}; found "
                         f"{cumulative.tolist()}")
    if words is not None and ((words < 0) | (words > lengths)).any():
        raise ValueError(f"attend: words {words.tolist()} must be at most the lengths {lengths.tolist()}")
