"""embed: the transformer's input, packed without padding (SPEC 7), and its gradient.

    text row t of sample b:   LN_0(word[tokens[b, t]] + position[t] + segment)
    position p of sample b:   LN_n(rows[source[b, p]] + constant[p]),   n the number of p's level, from 1

then dropout (dropout.py, by packed row: the backward draws the same mask again, nothing is kept for it).
Sample b holds its tokens, then its K positions; samples stand end to end, rows past the last are zero.
LayerNorm over H, eps 1e-12. fp32 throughout, float64 (on the CPU alone) where word, rows or constant is float64;
gradients are summed in that dtype. Under autocast nothing is cast: a tensor is read in the dtype it has, and
gets its gradient in it; the packed rows are rounded once, to the dtype that is asked for.

Shapes: B samples, T tokens, K positions, L levels, N packed rows, H hidden width, R encoded rows, V
vocabulary.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, pad

from kaleido_fast.kernels.dropout import drop_
from kaleido_fast.kernels.embed_backward_triton import embed_backward_triton
from kaleido_fast.kernels.embed_inputs import EPS, Inputs, check_shapes, check_values
from kaleido_fast.kernels.embed_triton import embed_triton
from kaleido_fast.kernels.geometry import position_levels

Gradients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
# As the operators take them one by one: the fields of Inputs; grids, dropout and its key; what the forward takes.
Fields = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
Options = tuple[Sequence[int], float, Tensor]
Forward = tuple[*Fields, int, *Options, torch.dtype | None]


class Layout(NamedTuple):
    """Where packed rows come from: B * K are patches, the other M = N - B * K text or past the last."""

    ids: Tensor  # (M,) row of the word table
    place: Tensor  # (M,) int64, t
    past: Tensor  # (M, 1) bool, past the last sample
    text_rows: Tensor  # (M,) int64, packed row
    patch_rows: Tensor  # (B * K,) int64, packed row
    cumulative: Tensor  # (B + 1,) int32


def embed_reference(
    inputs: Inputs, num_packed: int, grids: Sequence[int], dropout: float, dropout_key: Tensor,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """`embed` in plain PyTorch, arguments as there: the CPU path, and the truth for kernels."""
    layout, wide = _layout(inputs, num_packed), inputs.compute_dtype
    text = _text_sums(inputs, layout)
    weight, bias = inputs.norm_weight.to(wide), inputs.norm_bias.to(wide)
    text = layer_norm(text, text.shape[1:], weight[0], bias[0], EPS).masked_fill_(layout.past, 0)
    norms = 1 + position_levels(grids).to(text.device)
    patches = _patch_sums(inputs)
    patches = torch.addcmul(bias[norms], layer_norm(patches, patches.shape[2:], eps=EPS), weight[norms])
    packed = text.new_empty(num_packed, text.shape[1])
    packed.index_copy_(0, layout.text_rows, text).index_copy_(0, layout.patch_rows, patches.flatten(0, 1))
    return drop_(packed, dropout, dropout_key).to(dtype or inputs.dtype), layout.cumulative


def embed_backward_reference(
    dpacked: Tensor, inputs: Inputs, grids: Sequence[int], dropout: float, dropout_key: Tensor
) -> Gradients:
    """The gradient of `embed_reference`, given that of its packed rows (N, H).

    Returns:
        drows, dconstant, dword, dposition, dsegment, dnorm_weight, dnorm_bias, each like its input.
    """
    layout, dtype = _layout(inputs, len(dpacked)), inputs.compute_dtype
    dpacked = dpacked.to(dtype, copy=dropout > 0, memory_format=torch.contiguous_format)
    dpacked = drop_(dpacked, dropout, dropout_key)
    weight, norms = inputs.norm_weight.to(dtype), 1 + position_levels(grids).to(dpacked.device)

    dtext = dpacked.index_select(0, layout.text_rows).masked_fill_(layout.past, 0)
    dsums, dweight = _norm_backward(dtext, _text_sums(inputs, layout), weight[0])
    dnorm_weight, dnorm_bias = torch.zeros_like(weight), torch.zeros_like(weight)
    dnorm_weight[0], dnorm_bias[0] = dweight.sum(dim=0), dtext.sum(dim=0)

    dpatches = dpacked.index_select(0, layout.patch_rows).unflatten(0, inputs.source.shape)
    dpatch_sums, dweight = _norm_backward(dpatches, _patch_sums(inputs), weight[norms])
    dnorm_weight.index_add_(0, norms, dweight.sum(dim=0))
    dnorm_bias.index_add_(0, norms, dpatches.sum(dim=0))
    dconstant = dpatch_sums.sum(dim=0) if inputs.constant.dim() == 2 else dpatch_sums.clone()
    drows = dpatch_sums.masked_fill_(_blank(inputs), 0).flatten(0, 1)

    return (
        _summed_into(inputs.rows, inputs.source.flatten().clamp(min=0), drows),
        dconstant.to(inputs.constant.dtype),
        _summed_into(inputs.word, layout.ids, dsums),
        _summed_into(inputs.position, layout.place, dsums),
        dsums.sum(dim=0).to(inputs.segment.dtype),
        dnorm_weight.to(inputs.norm_weight.dtype),
        dnorm_bias.to(inputs.norm_bias.dtype),
    )


def _layout(inputs: Inputs, num_packed: int) -> Layout:
    """Text row m of sample b is packed row m + b * K, and so is a row past the last sample, with b = B."""
    (batch, num_patches), lengths = inputs.source.shape, inputs.lengths.long()
    ends, samples = lengths.cumsum(0), torch.arange(batch, device=lengths.device)
    text = torch.arange(num_packed - batch * num_patches, device=lengths.device)
    sample = torch.searchsorted(ends, text, right=True)
    past, safe = sample == batch, sample.clamp(max=batch - 1)
    place = (text - (ends - lengths)[safe]).masked_fill_(past, 0)
    first_patch = ends + samples * num_patches
    patch_rows = first_patch[:, None] + torch.arange(num_patches, device=lengths.device)
    cumulative = pad(first_patch + num_patches, (1, 0)).to(torch.int32)
    ids = inputs.tokens[safe, place].masked_fill_(past, 0)
    return Layout(ids, place, past[:, None], text + sample * num_patches, patch_rows.flatten(), cumulative)


def _text_sums(inputs: Inputs, layout: Layout) -> Tensor:
    """(M, H): what the text's norm reads."""
    dtype = inputs.compute_dtype
    words = inputs.word.index_select(0, layout.ids).to(dtype)
    places = (inputs.position.to(dtype) + inputs.segment.to(dtype)).index_select(0, layout.place)
    return words.add_(places)


def _patch_sums(inputs: Inputs) -> Tensor:
    """(B, K, H): what the levels' norms read."""
    rows = inputs.rows.index_select(0, inputs.source.flatten().clamp(min=0)).to(inputs.compute_dtype)
    return rows.unflatten(0, inputs.source.shape).masked_fill_(_blank(inputs), 0).add_(inputs.constant)


def _blank(inputs: Inputs) -> Tensor:
    return (inputs.source < 0)[:, :, None]


def _norm_backward(dy: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient of LayerNorm(x) * weight with respect to x, and to weight before any sum."""
    shape, only_dx = x.shape[-1:], [True, False, False]
    normed, mean, rstd = torch.native_layer_norm(x, shape, None, None, EPS)
    dx = torch.ops.aten.native_layer_norm_backward(dy * weight, x, shape, mean, rstd, None, None, only_dx)[0]
    return dx, normed.mul_(dy)


def _summed_into(table: Tensor, index: Tensor, rows: Tensor) -> Tensor:
    """Like `table`, zero but for `rows` added at `index`."""
    return rows.new_zeros(table.shape).index_add_(0, index, rows).to(table.dtype)


@torch.library.custom_op("kaleido_fast::embed", mutates_args=(), device_types="cpu")
def _embed_op(
    tokens: Tensor, lengths: Tensor, rows: Tensor, source: Tensor, constant: Tensor, word: Tensor,
    position: Tensor, segment: Tensor, norm_weight: Tensor, norm_bias: Tensor, num_packed: int,
    grids: Sequence[int], dropout: float, dropout_key: Tensor, dtype: torch.dtype | None,
) -> tuple[Tensor, Tensor]:
    inputs = Inputs(tokens, lengths, rows, source, constant, word, position, segment, norm_weight, norm_bias)
    check_values(inputs, num_packed)
    return embed_reference(inputs, num_packed, grids, dropout, dropout_key, dtype)


@torch.library.custom_op("kaleido_fast::embed_backward", mutates_args=(), device_types="cpu")
def _embed_backward_op(
    dpacked: Tensor, tokens: Tensor, lengths: Tensor, rows: Tensor, source: Tensor, constant: Tensor,
    word: Tensor, position: Tensor, segment: Tensor, norm_weight: Tensor, norm_bias: Tensor,
    grids: Sequence[int], dropout: float, dropout_key: Tensor,
) -> Gradients:
    inputs = Inputs(tokens, lengths, rows, source, constant, word, position, segment, norm_weight, norm_bias)
    return embed_backward_reference(dpacked, inputs, grids, dropout, dropout_key)


@_embed_op.register_kernel("cuda")
def _embed_cuda(*args: *Forward) -> tuple[Tensor, Tensor]:
    return embed_triton(Inputs(*args[:10]), *args[10:])


@_embed_backward_op.register_kernel("cuda")
def _embed_backward_cuda(dpacked: Tensor, *args: *tuple[*Fields, *Options]) -> tuple[Tensor, ...]:
    return embed_backward_triton(dpacked, Inputs(*args[:10]), *args[10:])


@_embed_op.register_fake
def _embed_fake(*args: *Forward) -> tuple[Tensor, Tensor]:
    inputs, num_packed, dtype = Inputs(*args[:10]), args[10], args[14]
    packed = inputs.word.new_empty((num_packed, inputs.word.shape[1]), dtype=dtype or inputs.dtype)
    return packed, inputs.lengths.new_empty((inputs.lengths.shape[0] + 1,), dtype=torch.int32)


@_embed_backward_op.register_fake
def _embed_backward_fake(_: Tensor, *args: *tuple[*Fields, *Options]) -> tuple[Tensor, ...]:
    return tuple(leaf.new_empty(leaf.shape) for leaf in _differentiable(Inputs(*args[:10])))


def _differentiable(inputs: Inputs) -> tuple[Tensor, ...]:
    return (inputs.rows, *inputs[4:])


class _Kept(Protocol):
    """What autograd keeps of a forward for its backward."""

    saved_tensors: tuple[Tensor, ...]
    grids: Sequence[int]
    dropout: float

    def save_for_backward(self, *tensors: Tensor) -> None: ...


def _save_inputs(ctx: _Kept, inputs: Forward, output: tuple[Tensor, Tensor]) -> None:
    *tensors, _, grids, dropout, dropout_key, _ = inputs
    ctx.save_for_backward(*tensors, dropout_key)
    ctx.grids, ctx.dropout = grids, dropout


def _embed_backward(ctx: _Kept, dpacked: Tensor, _: None) -> tuple[Tensor | None, ...]:
    *tensors, dropout_key = ctx.saved_tensors
    drows, *others = _embed_backward_op(dpacked, *tensors, ctx.grids, ctx.dropout, dropout_key)
    return None, None, drows, None, *others, None, None, None, None, None


_embed_op.register_autograd(_embed_backward, setup_context=_save_inputs)


def embed(
    tokens: Tensor, lengths: Tensor, num_packed: int, rows: Tensor, source: Tensor, constant: Tensor,
    word: Tensor, position: Tensor, segment: Tensor, norm_weight: Tensor, norm_bias: Tensor, *,
    grids: Sequence[int], dropout: float, dropout_key: Tensor, dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """Embed a batch and pack it end to end; nothing waits for the device.

    Differentiable once, in rows, constant, word, position, segment, norm_weight and norm_bias.

    Args:
        tokens: (B, T) int32; what stands behind a sample's length is not read.
        lengths: (B,) int32, tokens of each sample, at most T.
        num_packed: N, known to the host; at least sum(lengths) + B * K.
        rows: (R, H), projected features.
        source: (B, K) int32, the row that each position reads; -1: zeros.
        constant: (K, H), or (B, K, H), segment and location of each position.
        word, position, segment: (V, H), (at least T, H), (H,).
        norm_weight, norm_bias: (1 + L, H), the text's row first, then one a level.
        grids: L of them; none (K = 0, any number of norm rows) where the text stands alone.
        dropout: the rate, in [0, 1).
        dropout_key: (3,) int64: seed, step, stream = micro-batch * 65536 + worker.
        dtype: of the packed rows; by default the widest of word, rows and constant.
    Returns:
        packed (N, H), rounded once, and cumulative lengths (B + 1,) int32,
        from 0.
    Raises:
        ValueError: a shape or dtype does not fit, or N is too small; on CPU also lengths and indices out of
            range (on a GPU an index without a row reads as zeros); on a GPU float64, and H that is no multiple
            of 8 or above 4,096.
    """
    inputs = Inputs(tokens, lengths, rows, source, constant, word, position, segment, norm_weight, norm_bias)
    check_shapes(inputs, num_packed, grids)
    if not 0 <= dropout < 1 or dropout_key.shape != (3,) or dropout_key.dtype != torch.int64:
        raise ValueError(
            f"embed: dropout={dropout} must lie in [0, 1) and dropout_key {tuple(dropout_key.shape)}"
            f" {dropout_key.dtype} be (3,) int64: seed, step, stream"
        )
    return _embed_op(*inputs, num_packed, list(grids), dropout, dropout_key, dtype)
