"""attend on a GPU, forward (attend.py says what it computes): scores are never written to global memory.

A program serves a head of a sequence, or up to 128 of its rows where it is longer: a tile of queries at a time walks over the
keys by blocks with a running maximum, so that no more blocks are computed than the sequence has. Each query is asked for once,
each key and value once for each tile of queries: 90 rows in tiles of 32 ask three times for k and v, seven reads of a row in
all where three would do. How many of them a cache answers has not been measured.

A tile has 16 or 32 queries: of 64 Triton makes wgmma on an H100 and tcgen05 on a B200, which want larger tiles than these
sequences have. mma.sync is the same code on all of them. 90 rows of 64 in bf16 are 45 operations for each byte of q, k, v and
output moved once. The time it takes on a GPU has not been measured.

Products of fp32 are three of TF32 (relative error at most 2^-21 of the sum of magnitudes, against 2^-24 by fp32 itself), and of
16 bit exact; sums fp32. Statistics are to the base of 2.
"""

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from kaleido_fast.kernels.memory import loadable

GROUP = 128  # rows of a sequence that a program serves
MOST_KEYS = 512  # of a sequence: places in the dropout's counters
WIDTHS = (32, 64, 128)  # of a head
LOG2_E = tl.constexpr(math.log2(math.e))
LEAST = tl.constexpr(-1e38)  # a running maximum before the first key: finite, so that less it is no NaN


class Masks(NamedTuple):
    """What is seen and kept, beside the sequences' lengths."""

    words: Tensor | None  # (B,) int32: the prefix mask; None: full
    dropout: float
    key: Tensor  # (3,) int64
    layer: int


@triton.jit
def seen(query, key, words, length, PREFIX: tl.constexpr):
    """Whether a query sees a key, both as places in their sequence; queries past its end count as its patches."""
    inside = key < length
    if PREFIX:
        inside &= (key >= words) | ((key <= query) & (query < words))
    return inside


@triton.jit
def kept(query_row, head, first_key, key_ptr, layer, scale, HEADS: tl.constexpr, KEYS: tl.constexpr, THRESHOLD: tl.constexpr):
    """(queries, KEYS) fp32, 0 or 1 / (1 - rate): what a weight is multiplied with (attend.py says which is dropped)."""
    queries: tl.constexpr = query_row.shape[0]
    counter = (query_row.to(tl.int64) * HEADS + head)[:, None] * 128 + first_key // 4 + tl.arange(0, KEYS // 4)[None, :]
    word0, word1, word2, word3 = tl.philox(
        tl.load(key_ptr), counter.to(tl.uint32), (counter >> 32).to(tl.uint32) + ((layer + 1) << 16).to(tl.uint32),
        tl.load(key_ptr + 1).to(tl.uint32), tl.load(key_ptr + 2).to(tl.uint32),
    )
    words = tl.reshape(tl.join(tl.join(word0, word2), tl.join(word1, word3)), (queries, KEYS))
    return tl.where(words < THRESHOLD, 0.0, scale)


@triton.jit
def rows_of(ptr, begin, place, length, part, STRIDE: tl.constexpr, WIDTH: tl.constexpr):
    """(places, WIDTH): a head's rows of a sequence, 0 past its end."""
    offset = (begin + place).to(tl.int64)[:, None] * STRIDE + part + tl.arange(0, WIDTH)[None, :]
    return tl.load(ptr + offset, mask=(place < length)[:, None], other=0)


@triton.jit
def store_rows(ptr, x, begin, place, length, part, STRIDE: tl.constexpr, WIDTH: tl.constexpr):
    """The way back."""
    offset = (begin + place).to(tl.int64)[:, None] * STRIDE + part + tl.arange(0, WIDTH)[None, :]
    tl.store(ptr + offset, x.to(ptr.dtype.element_ty), mask=(place < length)[:, None])


@triton.jit
def extent(cumulative_ptr, sequence, num_sequences, num_packed):
    """Where a sequence begins, its length as far as it lies in N, and behind the last one, which has none, the spare rows."""
    begin = tl.load(cumulative_ptr + sequence)
    end = tl.load(cumulative_ptr + sequence + 1, mask=sequence < num_sequences, other=0)
    spare = tl.where((sequence == num_sequences) & (tl.program_id(1) == 0), num_packed - begin, 0)
    return begin, tl.minimum(end, num_packed) - begin, spare


@triton.jit(do_not_specialize=["num_sequences", "num_packed", "layer"])
def _attend_kernel(
    qkv_ptr,  # (N, 3 * HEADS * WIDTH)
    out_ptr,  # (N, HEADS * WIDTH)
    log_sums_ptr,  # (HEADS, N) fp32
    cumulative_ptr,  # (B + 1,) int32
    words_ptr,  # (B,) int32; not read unless PREFIX
    key_ptr,  # (3,) int64
    num_sequences,  # B
    num_packed,  # N
    layer,
    score_scale,  # 1 / sqrt(WIDTH), to the base of 2
    drop_scale,  # 1 / (1 - rate)
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    PREFIX: tl.constexpr,
    THRESHOLD: tl.constexpr,  # round(rate * 2^32); 0 draws nothing
    GROUP: tl.constexpr,
    QUERIES: tl.constexpr,  # at a time
    KEYS: tl.constexpr,  # at a time
):
    sequence, head = tl.program_id(0) // HEADS, tl.program_id(0) % HEADS
    begin, length, spare = extent(cumulative_ptr, sequence, num_sequences, num_packed)
    words = tl.load(words_ptr + sequence, mask=sequence < num_sequences, other=0) if PREFIX else 0
    hidden: tl.constexpr = HEADS * WIDTH
    part, first = head * WIDTH, tl.program_id(1) * GROUP

    for start in range(first, min(first + GROUP, length), QUERIES):
        query = start + tl.arange(0, QUERIES)
        q = rows_of(qkv_ptr, begin, query, length, part, 3 * hidden, WIDTH)
        top = tl.full((QUERIES,), LEAST, tl.float32)
        total = tl.zeros((QUERIES,), tl.float32)
        out = tl.zeros((QUERIES, WIDTH), tl.float32)
        for first_key in range(0, length, KEYS):
            key = first_key + tl.arange(0, KEYS)
            k = rows_of(qkv_ptr, begin, key, length, part + hidden, 3 * hidden, WIDTH)
            scores = tl.dot(q, tl.trans(k), input_precision="tf32x3") * score_scale
            scores = tl.where(seen(query[:, None], key[None, :], words, length, PREFIX), scores, -float("inf"))
            higher = tl.maximum(top, tl.max(scores, axis=1))
            weights, before = tl.exp2(scores - higher[:, None]), tl.exp2(top - higher)
            total = total * before + tl.sum(weights, axis=1)
            if THRESHOLD > 0:
                weights *= kept(begin + query, head, first_key, key_ptr, layer, drop_scale, HEADS, KEYS, THRESHOLD)
            v = rows_of(qkv_ptr, begin, key, length, part + 2 * hidden, 3 * hidden, WIDTH)
            out = tl.dot(weights.to(v.dtype), v, out * before[:, None], input_precision="tf32x3")
            top = higher
        store_rows(out_ptr, out * (1 / total)[:, None], begin, query, length, part, hidden, WIDTH)
        log_sums = (top + tl.log2(total)) / LOG2_E
        tl.store(log_sums_ptr + head.to(tl.int64) * num_packed + begin + query, log_sums, mask=query < length)

    for start in range(0, spare, QUERIES):
        place = start + tl.arange(0, QUERIES)
        store_rows(out_ptr, tl.zeros((QUERIES, WIDTH), tl.float32), begin, place, spare, part, hidden, WIDTH)
        nothing = tl.zeros((QUERIES,), tl.float32)
        tl.store(log_sums_ptr + head.to(tl.int64) * num_packed + begin + place, nothing, mask=place < spare)


def attend_triton(qkv: Tensor, heads: int, cumulative: Tensor, longest: int, masks: Masks) -> tuple[Tensor, Tensor]:
    """`attend_reference` by one kernel, arguments as there. A sequence's end past N, or rows past `longest`, are left out.

    Raises:
        ValueError: heads of a width, or a dtype, that there is no kernel for.
    """
    check(qkv, heads)
    qkv, cumulative = loadable(qkv), loadable(cumulative)
    num_packed, hidden = len(qkv), qkv.shape[1] // 3
    out, log_sums = qkv.new_empty(num_packed, hidden), qkv.new_empty((heads, num_packed), dtype=torch.float32)
    with torch.cuda.device_of(qkv):
        _attend_kernel[grid(heads, cumulative, longest)](
            qkv, out, log_sums, cumulative, *launched(qkv, heads, cumulative, masks), **tiles(qkv.dtype, hidden // heads))
    return out, log_sums


def grid(heads: int, cumulative: Tensor, longest: int) -> tuple[int, int]:
    """Programs: heads of sequences, and of the rows behind them, by groups of rows."""
    return heads * len(cumulative), max(1, triton.cdiv(longest, GROUP))


def launched(qkv: Tensor, heads: int, cumulative: Tensor, masks: Masks) -> tuple[object, ...]:
    """What both kernels take behind the cumulative lengths, up to THRESHOLD."""
    width = qkv.shape[1] // 3 // heads
    return (
        loadable(cumulative if masks.words is None else masks.words), loadable(masks.key), len(cumulative) - 1, len(qkv),
        masks.layer, math.log2(math.e) / math.sqrt(width), 1 / (1 - masks.dropout), heads, width, masks.words is not None,
        round(masks.dropout * 2**32),
    )


def tiles(dtype: torch.dtype, width: int) -> dict[str, int]:
    """Of the forward: nothing is spilled, with dropout and without (benchmarks/results/compiled.json)."""
    half = dtype.itemsize == 2
    return {"GROUP": GROUP, "QUERIES": 32 if half else 16, "KEYS": 32, "num_warps": 2 if half and width < 128 else 4,
            "num_stages": 1}


def check(qkv: Tensor, heads: int) -> None:
    """Refuse what the kernels are not written for."""
    width = qkv.shape[1] // 3 // heads
    if width not in WIDTHS:
        raise ValueError(f"attend: heads of {width}, must be of {', '.join(map(str, WIDTHS))} on a GPU; choose another number "
                         "of them")
    if qkv.dtype == torch.float64:
        raise ValueError("attend: qkv is float64, must be fp32 or half precision on a GPU; convert it, or move it to the CPU")
