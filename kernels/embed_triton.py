"""embed on a GPU (embed.py says what it computes): a row read once, normed, dropped out, written once.

Three launches: the cumulative lengths, all text rows, all patch rows. A program serves one place of the
sequence, text place t or position p, for up to 32 samples, so that what belongs to the place (its position's
row or constant, the norm's weight and bias, the segment) is read once for all of them: over 32 rows the two
norm rows and the place's own add 3/32 of a row to a row read and a row written. Two rows of 768 values are
under way at a time, 16 values a thread: 3 KiB of bf16 a program, and 7 programs fit an SM (at most 72 registers,
benchmarks/results), against the 18 KiB an SM that an H100 has to have under way. Four rows would take 128
registers for as many bytes and half the warps.

Places are numbered fastest, so programs that run side by side write neighbouring rows. Rows past the last
sample are cleared by the text's programs in turn. What a length or N that do not fit would put past N is not
written. An id or a source without a row in its table reads as zeros, and has no gradient there.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from kaleido_fast.kernels.dropout_triton import dropped
from kaleido_fast.kernels.embed_inputs import MAX_HIDDEN, Inputs
from kaleido_fast.kernels.geometry import level_offsets
from kaleido_fast.kernels.memory import loadable
from kaleido_fast.kernels.norm_triton import normed

SAMPLES = 32  # a program serves
_VALUES = 2048  # of a tile: 16 a thread of 4 warps
_LENGTHS = 1024  # that the one program of the cumulative lengths takes at a time


@triton.jit(do_not_specialize=["num_samples", "num_patches"])
def _cumulative_kernel(
    lengths_ptr,  # (B,) int32
    cumulative_ptr,  # (B + 1,) int32
    num_samples,  # B
    num_patches,  # K
    BLOCK: tl.constexpr,
):
    tl.store(cumulative_ptr, 0)
    total = tl.full((), 0, tl.int32)
    for first in range(0, num_samples, BLOCK):
        sample = first + tl.arange(0, BLOCK)
        inside = sample < num_samples
        rows = tl.load(lengths_ptr + sample, mask=inside, other=0) + tl.where(inside, num_patches, 0)
        tl.store(cumulative_ptr + 1 + sample, total + tl.cumsum(rows, axis=0), mask=inside)
        total += tl.sum(rows, axis=0)


@triton.jit(do_not_specialize=["num_samples", "num_packed", "num_words"])
def _text_kernel(
    packed_ptr,  # (N, H)
    tokens_ptr,  # (B, T) int32
    lengths_ptr,  # (B,) int32
    cumulative_ptr,  # (B + 1,) int32
    word_ptr,  # (V, H)
    position_ptr,  # (at least T, H)
    segment_ptr,  # (H,)
    weight_ptr,  # (1 + L, H)
    bias_ptr,  # (1 + L, H)
    key_ptr,  # (3,) int64
    num_samples,  # B
    num_packed,  # N
    num_words,  # V
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
    bias = tl.load(bias_ptr + column, mask=inside, other=0).to(tl.float32)

    for start in range(first, min(first + SAMPLES, num_samples), ROWS):
        sample = start + tl.arange(0, ROWS)[:, None]
        live = place < tl.load(lengths_ptr + sample, mask=sample < num_samples, other=0)
        row = tl.load(cumulative_ptr + sample, mask=live, other=0).to(tl.int64) + place
        live &= row < num_packed
        word = tl.load(tokens_ptr + sample.to(tl.int64) * num_places + place, mask=live, other=0).to(tl.int64)
        known = live & (word >= 0) & (word < num_words)
        x = tl.load(word_ptr + word * HIDDEN + column, mask=known & inside, other=0).to(tl.float32)
        x, _ = normed(x + at_place, inside, HIDDEN)
        x = dropped(x * weight + bias, row, key_ptr, scale, THRESHOLD, HIDDEN)
        tl.store(packed_ptr + row * HIDDEN + column, x.to(packed_ptr.dtype.element_ty), mask=live & inside)

    spare = tl.load(cumulative_ptr + num_samples).to(tl.int64) + tl.program_id(1) * num_places + place
    for row in range(spare, num_packed, num_places * tl.num_programs(1)):
        nothing = tl.zeros((1, BLOCK), packed_ptr.dtype.element_ty)
        tl.store(packed_ptr + row * HIDDEN + column, nothing, mask=inside)


@triton.jit(do_not_specialize=["num_samples", "num_packed", "num_rows", "constant_stride"])
def _patch_kernel(
    packed_ptr,  # (N, H)
    cumulative_ptr,  # (B + 1,) int32
    rows_ptr,  # (R, H)
    source_ptr,  # (B, K) int32
    constant_ptr,  # (K, H), or (B, K, H)
    weight_ptr,  # (1 + L, H)
    bias_ptr,  # (1 + L, H)
    key_ptr,  # (3,) int64
    num_samples,  # B
    num_packed,  # N
    num_rows,  # R
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
    bias = tl.load(bias_ptr + norm + column, mask=inside, other=0).to(tl.float32)

    for start in range(first, min(first + SAMPLES, num_samples), ROWS):
        sample = start + tl.arange(0, ROWS)[:, None]
        live = sample < num_samples
        row = tl.load(cumulative_ptr + 1 + sample, mask=live, other=0).to(tl.int64) - num_places + place
        live &= row < num_packed
        x = patch_sums(
            sample, place, num_places, live, column, rows_ptr, source_ptr, constant_ptr, num_rows, constant_stride,
            HIDDEN,
        )
        x, _ = normed(x, inside, HIDDEN)
        x = dropped(x * weight + bias, row, key_ptr, scale, THRESHOLD, HIDDEN)
        tl.store(packed_ptr + row * HIDDEN + column, x.to(packed_ptr.dtype.element_ty), mask=live & inside)


@triton.jit
def norm_of(position, OFFSETS: tl.constexpr):
    """The row of the norms' tables that a position's level has."""
    norm = position * 0
    for level in tl.static_range(len(OFFSETS)):
        norm += (position >= OFFSETS[level]).to(tl.int32)
    return norm


@triton.jit
def patch_sums(
    sample,  # (ROWS, 1)
    place, num_places, live, column, rows_ptr, source_ptr, constant_ptr, num_rows, constant_stride,
    HIDDEN: tl.constexpr,
):
    """(ROWS, BLOCK) fp32: what the level's norm reads."""
    inside = column < HIDDEN
    source = tl.load(source_ptr + sample.to(tl.int64) * num_places + place, mask=live, other=-1).to(tl.int64)
    constant = (sample.to(tl.int64) * constant_stride + place) * HIDDEN + column
    shown = (source >= 0) & (source < num_rows)
    x = tl.load(rows_ptr + source * HIDDEN + column, mask=shown & inside, other=0).to(tl.float32)
    return x + tl.load(constant_ptr + constant, mask=live & inside, other=0).to(tl.float32)


def embed_triton(
    inputs: Inputs, num_packed: int, grids: Sequence[int], dropout: float, dropout_key: Tensor,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """`embed_reference` by kernels, arguments as there. Tensors that are no kernel can load (memory.py) are copied first.

    Lengths and indices out of range are not refused, for that would wait for the device: zeros are read.

    Raises:
        ValueError: H is no multiple of 8, or above 4,096, or something is float64.
    """
    check(inputs)
    inputs, dropout_key = Inputs(*map(loadable, inputs)), loadable(dropout_key)
    (batch, width), num_patches = inputs.tokens.shape, inputs.source.shape[1]
    cumulative = cumulative_lengths(inputs.lengths, num_patches)
    hidden, blocks = inputs.word.shape[1], triton.cdiv(batch, SAMPLES)
    packed = inputs.word.new_empty((num_packed, hidden), dtype=dtype or inputs.dtype)
    options = tiles(hidden) | {"scale": 1 / (1 - dropout), "THRESHOLD": round(dropout * 2**32)}
    with torch.cuda.device_of(packed):
        if inputs.tokens.numel():
            _text_kernel[(width, blocks)](
                packed, inputs.tokens, inputs.lengths, cumulative, inputs.word, inputs.position, inputs.segment,
                inputs.norm_weight, inputs.norm_bias, dropout_key, batch, num_packed, len(inputs.word), **options,
            )
        else:
            packed.zero_()  # no program of the text's clears the spare rows
        if inputs.source.numel():
            _patch_kernel[(num_patches, blocks)](
                packed, cumulative, inputs.rows, inputs.source, inputs.constant, inputs.norm_weight,
                inputs.norm_bias, dropout_key, batch, num_packed, len(inputs.rows), constant_stride(inputs),
                OFFSETS=level_offsets(grids), **options,
            )
    return packed, cumulative


def cumulative_lengths(lengths: Tensor, num_patches: int) -> Tensor:
    """(B + 1,) int32: where each sample's packed rows begin, from 0."""
    cumulative = lengths.new_empty(len(lengths) + 1, dtype=torch.int32)
    with torch.cuda.device_of(lengths):
        _cumulative_kernel[(1,)](lengths, cumulative, len(lengths), num_patches, BLOCK=_LENGTHS)
    return cumulative


def constant_stride(inputs: Inputs) -> int:
    """Rows from one sample's constants to the next one's; 0 where all share them."""
    return 0 if inputs.constant.dim() == 2 else inputs.source.shape[1]


def tiles(hidden: int) -> dict[str, int]:
    """The tile of a program: whole rows, and how many of them."""
    block = triton.next_power_of_2(hidden)
    rows = min(SAMPLES, max(1, _VALUES // block))
    return {"HIDDEN": hidden, "BLOCK": block, "ROWS": rows, "SAMPLES": SAMPLES, "num_warps": 4}


def check(inputs: Inputs) -> None:
    """Refuse what the kernels are not written for."""
    hidden = inputs.word.shape[1]
    if hidden % 8 or hidden > MAX_HIDDEN:
        raise ValueError(
            f"embed: hidden width {hidden:,} must be a multiple of 8 up to {MAX_HIDDEN:,} on a GPU; give word, rows and"
            " constant such a width"
        )
    for name, tensor in zip(Inputs._fields, inputs, strict=True):
        if tensor.dtype == torch.float64:
            raise ValueError(
                f"embed: {name} is float64, must be fp32 or half precision on a GPU; convert it, or move the batch"
                " to the CPU"
            )
