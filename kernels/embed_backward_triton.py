"""The gradient of embed on a GPU (embed.py says what it computes): deterministic, without atomics.

1. Text and patches, laid out as in embed_triton.py: a program reads its rows and their incoming gradient once,
   norms again (statistics are not kept), draws the mask again, writes each row's gradient once, and adds up in
   registers, in order, what its place, the norm and its bias get.
2. These sums, one a program, are summed over the blocks of samples, then over places (torch's sums, whose
   order is fixed too).
3. Each row's gradient goes where the row was read from, by row_sums_triton.py: words by id, patches by source.

In bytes, with e a value's: a text row costs 4 H e (incoming, word, and its gradient written and read), a patch
row 6 H e (the table of rows is cleared and written besides), the word table V H e and once more what is used
of it. 12 H bytes a program of 32 rows are the sums. A row's gradient is kept in the widest dtype of the tables, in
whatever dtype it came.
"""

import itertools
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from kaleido_fast.kernels.dropout_triton import dropped
from kaleido_fast.kernels.embed_inputs import Inputs
from kaleido_fast.kernels.embed_triton import SAMPLES, check, constant_stride, cumulative_lengths, norm_of, patch_sums, tiles
from kaleido_fast.kernels.geometry import level_offsets
from kaleido_fast.kernels.memory import loadable
from kaleido_fast.kernels.norm_triton import norm_gradient, normed
from kaleido_fast.kernels.row_sums_triton import sum_rows


@triton.jit(do_not_specialize=["num_samples", "num_packed", "num_words", "num_patches"])
def _text_backward_kernel(
    dpacked_ptr,  # (N, H)
    dtext_ptr,  # (N - B * K, H), text row m of sample b is packed row m + b * K
    sums_ptr,  # (blocks, T + K, 3, H) fp32: of x, norm weight, norm bias
    tokens_ptr,  # (B, T) int32
    lengths_ptr,  # (B,) int32
    cumulative_ptr,  # (B + 1,) int32
    word_ptr,  # (V, H)
    position_ptr,  # (at least T, H)
    segment_ptr,  # (H,)
    weight_ptr,  # (1 + L, H)
    key_ptr,  # (3,) int64
    num_samples,  # B
    num_packed,  # N
    num_words,  # V
    num_patches,  # K
    scale,
    THRESHOLD: tl.constexpr,
    HIDDEN: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    SAMPLES: tl.constexpr,
):
    place, num_places = tl.program_id(0), tl.num_programs(0)
    first = tl.program_id(1) * SAMPLES
    column = tl.arange(0, BLOCK)[None, :]
    inside = column < HIDDEN
    at_place = tl.load(position_ptr + place.to(tl.int64) * HIDDEN + column, mask=inside, other=0).to(tl.float32)
    at_place += tl.load(segment_ptr + column, mask=inside, other=0).to(tl.float32)
    weight = tl.load(weight_ptr + column, mask=inside, other=0).to(tl.float32)
    dx_sum = tl.zeros((1, BLOCK), tl.float32)
    dweight_sum, dbias_sum = dx_sum, dx_sum

    for start in range(first, min(first + SAMPLES, num_samples), ROWS):
        sample = start + tl.arange(0, ROWS)[:, None]
        live = place < tl.load(lengths_ptr + sample, mask=sample < num_samples, other=0)
        row = tl.load(cumulative_ptr + sample, mask=live, other=0).to(tl.int64) + place
        live &= row < num_packed
        word = tl.load(tokens_ptr + sample.to(tl.int64) * num_places + place, mask=live, other=0).to(tl.int64)
        known = live & (word >= 0) & (word < num_words)
        x = tl.load(word_ptr + word * HIDDEN + column, mask=known & inside, other=0).to(tl.float32)
        x, rstd = normed(x + at_place, inside, HIDDEN)
        dy = tl.load(dpacked_ptr + row * HIDDEN + column, mask=live & inside, other=0).to(tl.float32)
        dy = dropped(dy, row, key_ptr, scale, THRESHOLD, HIDDEN)
        dx = tl.where(live, norm_gradient(dy * weight, x, rstd, HIDDEN), 0.0)
        tl.store(
            dtext_ptr + (row - sample * num_patches) * HIDDEN + column, dx.to(dtext_ptr.dtype.element_ty),
            mask=live & inside,
        )
        dx_sum += tl.sum(dx, axis=0, keep_dims=True)
        dweight_sum += tl.sum(tl.where(live, dy * x, 0.0), axis=0, keep_dims=True)
        dbias_sum += tl.sum(dy, axis=0, keep_dims=True)

    block = tl.program_id(1).to(tl.int64) * (num_places + num_patches) + place
    _store_sums(sums_ptr, block, column, dx_sum, dweight_sum, dbias_sum, HIDDEN)


@triton.jit(do_not_specialize=["num_samples", "num_packed", "num_rows", "num_tokens", "constant_stride"])
def _patch_backward_kernel(
    dpacked_ptr,  # (N, H)
    dpatches_ptr,  # (B, K, H)
    sums_ptr,  # (blocks, T + K, 3, H) fp32: of x, norm weight, norm bias
    cumulative_ptr,  # (B + 1,) int32
    rows_ptr,  # (R, H)
    source_ptr,  # (B, K) int32
    constant_ptr,  # (K, H), or (B, K, H)
    weight_ptr,  # (1 + L, H)
    key_ptr,  # (3,) int64
    num_samples,  # B
    num_packed,  # N
    num_rows,  # R
    num_tokens,  # T
    constant_stride,  # rows from a sample's constants to the next one's: 0 or K
    scale,
    THRESHOLD: tl.constexpr,
    OFFSETS: tl.constexpr,  # first position of each level
    HIDDEN: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    SAMPLES: tl.constexpr,
):
    place, num_places = tl.program_id(0), tl.num_programs(0)
    first = tl.program_id(1) * SAMPLES
    column = tl.arange(0, BLOCK)[None, :]
    inside = column < HIDDEN
    norm = norm_of(place, OFFSETS) * HIDDEN
    weight = tl.load(weight_ptr + norm + column, mask=inside, other=0).to(tl.float32)
    dx_sum = tl.zeros((1, BLOCK), tl.float32)
    dweight_sum, dbias_sum = dx_sum, dx_sum

    for start in range(first, min(first + SAMPLES, num_samples), ROWS):
        sample = start + tl.arange(0, ROWS)[:, None]
        live = sample < num_samples
        row = tl.load(cumulative_ptr + 1 + sample, mask=live, other=0).to(tl.int64) - num_places + place
        live &= row < num_packed
        x = patch_sums(
            sample, place, num_places, live, column, rows_ptr, source_ptr, constant_ptr, num_rows, constant_stride,
            HIDDEN,
        )
        x, rstd = normed(x, inside, HIDDEN)
        dy = tl.load(dpacked_ptr + row * HIDDEN + column, mask=live & inside, other=0).to(tl.float32)
        dy = dropped(dy, row, key_ptr, scale, THRESHOLD, HIDDEN)
        dx = tl.where(live, norm_gradient(dy * weight, x, rstd, HIDDEN), 0.0)
        tl.store(
            dpatches_ptr + (sample.to(tl.int64) * num_places + place) * HIDDEN + column,
            dx.to(dpatches_ptr.dtype.element_ty), mask=live & inside,
        )
        dx_sum += tl.sum(dx, axis=0, keep_dims=True)
        dweight_sum += tl.sum(tl.where(live, dy * x, 0.0), axis=0, keep_dims=True)
        dbias_sum += tl.sum(dy, axis=0, keep_dims=True)

    block = tl.program_id(1).to(tl.int64) * (num_tokens + num_places) + num_tokens + place
    _store_sums(sums_ptr, block, column, dx_sum, dweight_sum, dbias_sum, HIDDEN)


@triton.jit
def _store_sums(sums_ptr, block, column, dx_sum, dweight_sum, dbias_sum, HIDDEN: tl.constexpr):
    first = sums_ptr + block * 3 * HIDDEN + column
    tl.store(first, dx_sum, mask=column < HIDDEN)
    tl.store(first + HIDDEN, dweight_sum, mask=column < HIDDEN)
    tl.store(first + 2 * HIDDEN, dbias_sum, mask=column < HIDDEN)


def embed_backward_triton(
    dpacked: Tensor, inputs: Inputs, grids: Sequence[int], dropout: float, dropout_key: Tensor
) -> tuple[Tensor, ...]:
    """`embed_backward_reference` by kernels, arguments as there.

    Raises:
        ValueError: H is no multiple of 8, or above 4,096, or something is float64.
    """
    check(inputs)
    inputs, dpacked, dropout_key = Inputs(*map(loadable, inputs)), loadable(dpacked), loadable(dropout_key)
    cumulative = cumulative_lengths(inputs.lengths, inputs.source.shape[1])
    dtext, dpatches, sums = _row_gradients(dpacked, inputs, cumulative, grids, dropout, dropout_key)
    (batch, width), num_patches = inputs.tokens.shape, inputs.source.shape[1]
    dposition = inputs.position.new_zeros(inputs.position.shape)
    dposition[:width] = sums[:width, 0]
    shared = inputs.constant.dim() == 2
    dnorm = _norm_sums(sums[:, 1:], width, grids, len(inputs.norm_weight))

    samples, places = torch.arange(batch, device=dpacked.device), torch.arange(width, device=dpacked.device)
    ids = torch.where(places < inputs.lengths[:, None], inputs.tokens, -1)
    text_rows = (cumulative[:-1] - samples * num_patches)[:, None] + places
    patch_rows = torch.arange(batch * num_patches, device=dpacked.device)
    return (
        sum_rows(dpatches.flatten(0, 1), inputs.source.flatten(), patch_rows, inputs.rows),
        _copy(sums[width:, 0], inputs.constant) if shared else dpatches.to(inputs.constant.dtype),
        sum_rows(dtext, ids.flatten(), text_rows.flatten(), inputs.word),
        dposition,
        sums[:width, 0].sum(dim=0).to(inputs.segment.dtype),
        _copy(dnorm[:, 0], inputs.norm_weight),
        _copy(dnorm[:, 1], inputs.norm_bias),
    )


def _copy(gradient: Tensor, leaf: Tensor) -> Tensor:
    """In the leaf's dtype and in memory of its own: an operator's results may not overlap."""
    return gradient.to(leaf.dtype, copy=True, memory_format=torch.contiguous_format)


def _row_gradients(
    dpacked: Tensor, inputs: Inputs, cumulative: Tensor, grids: Sequence[int], dropout: float, dropout_key: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Of text rows (M, H), of patches (B, K, H), and what each place sums to (T + K, 3, H) fp32."""
    (batch, width), num_patches = inputs.tokens.shape, inputs.source.shape[1]
    num_packed, hidden = dpacked.shape
    blocks = triton.cdiv(batch, SAMPLES)
    dtext = dpacked.new_empty((num_packed - batch * num_patches, hidden), dtype=inputs.dtype)
    dpatches = dpacked.new_empty((batch, num_patches, hidden), dtype=inputs.dtype)
    sums = dpacked.new_empty((blocks, width + num_patches, 3, hidden), dtype=torch.float32)
    options = tiles(hidden) | {"scale": 1 / (1 - dropout), "THRESHOLD": round(dropout * 2**32)}
    with torch.cuda.device_of(dpacked):
        if inputs.tokens.numel():
            _text_backward_kernel[(width, blocks)](
                dpacked, dtext, sums, inputs.tokens, inputs.lengths, cumulative, inputs.word, inputs.position,
                inputs.segment, inputs.norm_weight, dropout_key, batch, num_packed, len(inputs.word), num_patches,
                **options,
            )
        if inputs.source.numel():
            _patch_backward_kernel[(num_patches, blocks)](
                dpacked, dpatches, sums, cumulative, inputs.rows, inputs.source, inputs.constant,
                inputs.norm_weight, dropout_key, batch, num_packed, len(inputs.rows), width, constant_stride(inputs),
                OFFSETS=level_offsets(grids), **options,
            )
    return dtext, dpatches, sums.sum(dim=0)


def _norm_sums(sums: Tensor, width: int, grids: Sequence[int], num_norms: int) -> Tensor:
    """(number of norms, 2, H): `sums` (T + K, 2, H) over the text's places, then over each level's."""
    ends = [width + offset for offset in (*level_offsets(grids), sums.shape[0] - width)]
    norms = sums.new_zeros((num_norms, *sums.shape[1:]))
    for norm, (first, last) in enumerate(itertools.pairwise([0, *ends])):
        norms[norm] = sums[first:last].sum(dim=0)
    return norms
