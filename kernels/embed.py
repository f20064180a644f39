"""embed: the transformer's input, packed without padding (SPEC 7), and its gradient.

    text row t of sample b:   LN_0(word[tokens[b, t]] + position[t] + segment)
    position p of sample b:   LN_n(rows[source[b, p]] + constant[p]),   n the number of p's level, from 1

then dropout. Sample b holds its tokens, then its K positions; samples stand end to end, rows past the last are zero.
LayerNorm over H, eps 1e-12. fp32 throughout, float64 where an input is float64; gradients are summed in that dtype.

Dropout is Philox-4x32-10, indexed by place and not drawn in sequence: value e = packed row * H + column takes word e & 3
of key (seed), counter (e >> 2, in two words, step, stream) and is dropped where the word lies below round(rate * 2^32);
the rest is scaled by 1 / (1 - rate). So the backward draws the same mask again, and nothing is kept for it.

Shapes: B samples, T tokens, K positions, L levels, N packed rows, H hidden width, R encoded rows, V vocabulary.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from kaleido_fast.kernels.geometry import num_positions, position_levels
from kaleido_fast.kernels.philox import philox

EPS = 1e-12
STREAMS_PER_MICRO_BATCH = 65536  # dropout stream = micro-batch * this + worker

_DRAWS_AT_ONCE = 16384  # Philox counters a pass: 25 ms instead of 64 ms for 1.5 M values, as they stay in cache


class Inputs(NamedTuple):
    """The tensors that a batch is embedded from."""

    tokens: Tensor  # (B, T) int32
    lengths: Tensor  # (B,) int32
    rows: Tensor  # (R, H)
    source: Tensor  # (B, K) int32, -1: a row of zeros
    constant: Tensor  # (K, H), or (B, K, H)
    word: Tensor  # (V, H)
    position: Tensor  # (at least T, H)
    segment: Tensor  # (H,)
    norm_weight: Tensor  # (1 + L, H), the text's first
    norm_bias: Tensor  # (1 + L, H)

    @property
    def dtype(self) -> torch.dtype:
        """The result's: the widest of tables and rows."""
        return torch.promote_types(self.word.dtype, torch.promote_types(self.rows.dtype, self.constant.dtype))

    @property
    def compute_dtype(self) -> torch.dtype:
        return torch.promote_types(self.dtype, torch.float32)


class Layout(NamedTuple):
    """Where packed rows come from. Of the N, B * K are patches and M = N - B * K text or past the last sample."""

    ids: Tensor  # (M,) row of the word table
    place: Tensor  # (M,) int64, t
    past: Tensor  # (M, 1) bool, past the last sample
    text_rows: Tensor  # (M,) int64, packed row
    patch_rows: Tensor  # (B * K,) int64, packed row
    cumulative: Tensor  # (B + 1,) int32


def embed_reference(
    inputs: Inputs, num_packed: int, grids: Sequence[int], dropout: float, dropout_key: Tensor
) -> tuple[Tensor, Tensor]:
    """`embed` in plain PyTorch, arguments as there: the CPU path, and the truth for kernels."""
    layout, dtype = _layout(inputs, num_packed), inputs.compute_dtype
    text = _text_sums(inputs, layout)
    weight, bias = inputs.norm_weight.to(dtype), inputs.norm_bias.to(dtype)
    text = layer_norm(text, text.shape[1:], weight[0], bias[0], EPS).masked_fill_(layout.past, 0)
    norms = 1 + position_levels(grids).to(text.device)
    patches = _patch_sums(inputs)
    patches = torch.addcmul(bias[norms], layer_norm(patches, patches.shape[2:], eps=EPS), weight[norms])
    packed = text.new_empty(num_packed, text.shape[1])
    packed.index_copy_(0, layout.text_rows, text).index_copy_(0, layout.patch_rows, patches.flatten(0, 1))
    return drop_(packed, dropout, dropout_key).to(inputs.dtype), layout.cumulative


def embed_backward_reference(
    dpacked: Tensor, inputs: Inputs, grids: Sequence[int], dropout: float, dropout_key: Tensor
) -> tuple[Tensor, ...]:
    """The gradient of `embed_reference`, given that of its packed rows (N, H).

    Returns:
        drows, dconstant, dword, dposition, dsegment, dnorm_weight, dnorm_bias, each like its input.
    """
    layout, dtype = _layout(inputs, len(dpacked)), inputs.compute_dtype
    dpacked = drop_(dpacked.to(dtype, memory_format=torch.contiguous_format, copy=dropout > 0), dropout, dropout_key)
    weight, norms = inputs.norm_weight.to(dtype), 1 + position_levels(grids).to(dpacked.device)

    dtext = dpacked.index_select(0, layout.text_rows).masked_fill_(layout.past, 0)
    dsums, dweight = _norm_backward(dtext, _text_sums(inputs, layout), weight[0])
    dnorm_weight, dnorm_bias = torch.zeros_like(weight), torch.zeros_like(weight)
    dnorm_weight[0], dnorm_bias[0] = dweight.sum(dim=0), dtext.sum(dim=0)

    dpatches = dpacked.index_select(0, layout.patch_rows).view(*inputs.source.shape, -1)
    dpatch_sums, dweight = _norm_backward(dpatches, _patch_sums(inputs), weight[norms])
    dnorm_weight.index_add_(0, norms, dweight.sum(dim=0))
    dnorm_bias.index_add_(0, norms, dpatches.sum(dim=0))
    dconstant = dpatch_sums.sum(dim=0) if inputs.constant.dim() == 2 else dpatch_sums.clone()
    drows = dpatch_sums.masked_fill_(_blank(inputs), 0).flatten(0, 1)

    return (
        _summed_into(inputs.rows, inputs.source.flatten().clamp(min=0), drows), dconstant.to(inputs.constant.dtype),
        _summed_into(inputs.word, layout.ids, dsums), _summed_into(inputs.position, layout.place, dsums),
        dsums.sum(dim=0).to(inputs.segment.dtype),
        dnorm_weight.to(inputs.norm_weight.dtype), dnorm_bias.to(inputs.norm_bias.dtype),
    )


def drop_(x: Tensor, rate: float, key: Tensor) -> Tensor:
    """Dropout in place on contiguous x (N, H); a rate of 0 draws nothing. key (3,) int64: seed, step, stream."""
    if rate == 0:
        return x
    values, threshold = x.view(-1), round(rate * 2**32)
    quads = torch.arange((len(values) + 3) // 4, device=x.device)
    for quad, part in zip(quads.split(_DRAWS_AT_ONCE), values.split(4 * _DRAWS_AT_ONCE)):
        words = torch.stack(philox(key[0], key[0] >> 32, quad, quad >> 32, key[1], key[2]), dim=1)
        part.masked_fill_(words.view(-1)[: len(part)] < threshold, 0)
    return x.mul_(1 / (1 - rate))


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
    cumulative = torch.nn.functional.pad(first_patch + num_patches, (1, 0)).to(torch.int32)
    ids = inputs.tokens[safe, place]
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
    return rows.view(*inputs.source.shape, -1).masked_fill_(_blank(inputs), 0).add_(inputs.constant)


def _blank(inputs: Inputs) -> Tensor:
    return (inputs.source < 0)[:, :, None]


def _norm_backward(dy: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient of LayerNorm(x) * weight with respect to x, and to weight before any sum."""
    shape = x.shape[-1:]
    normalised, mean, rstd = torch.native_layer_norm(x, shape, None, None, EPS)
    wanted = [True, False, False]
    dx, _, _ = torch.ops.aten.native_layer_norm_backward(dy * weight, x, shape, mean, rstd, None, None, wanted)
    return dx, normalised.mul_(dy)


def _summed_into(table: Tensor, index: Tensor, rows: Tensor) -> Tensor:
    """Like `table`, zero but for `rows` added at `index`."""
    return torch.zeros_like(table, dtype=rows.dtype).index_add_(0, index, rows).to(table.dtype)
