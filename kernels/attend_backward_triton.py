"""attend's gradient on a GPU (attend.py says what it computes): of q, k and v in one piece, nothing added by atomics.

A program serves a head of a sequence, or up to 128 of its rows, twice: as keys, whose gradients are sums over all queries, and
as queries, whose gradients are sums over all keys. So the scores are computed twice, and every row is written once, by one
program, in an order of sums that is always the same. What a softmax's gradient takes off, sum_j p_ij dp_ij, is the product of
the output with its gradient. Tiles and products as in attend_triton.py.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kaleido_fast.kernels.attend_triton import (
    GROUP, LOG2_E, Masks, check, extent, grid, kept, launched, rows_of, seen, store_rows,
)
from kaleido_fast.kernels.memory import loadable


@triton.jit(do_not_specialize=["num_sequences", "num_packed", "layer"])
def _attend_backward_kernel(
    dout_ptr,  # (N, HEADS * WIDTH)
    qkv_ptr,  # (N, 3 * HEADS * WIDTH)
    out_ptr,  # (N, HEADS * WIDTH)
    log_sums_ptr,  # (HEADS, N) fp32
    dqkv_ptr,  # (N, 3 * HEADS * WIDTH)
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
    THRESHOLD: tl.constexpr,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,  # that gradients are summed for at a time
    OTHERS: tl.constexpr,  # that they are summed over at a time
):
    sequence, head = tl.program_id(0) // HEADS, tl.program_id(0) % HEADS
    begin, length, spare = extent(cumulative_ptr, sequence, num_sequences, num_packed)
    words = tl.load(words_ptr + sequence, mask=sequence < num_sequences, other=0) if PREFIX else 0
    hidden: tl.constexpr = HEADS * WIDTH
    part, first = head * WIDTH, tl.program_id(1) * GROUP
    log_sums_ptr += head.to(tl.int64) * num_packed + begin

    for start in range(first, min(first + GROUP, length), ROWS):
        key = start + tl.arange(0, ROWS)
        k = rows_of(qkv_ptr, begin, key, length, part + hidden, 3 * hidden, WIDTH)
        v = rows_of(qkv_ptr, begin, key, length, part + 2 * hidden, 3 * hidden, WIDTH)
        dk, dv = tl.zeros((ROWS, WIDTH), tl.float32), tl.zeros((ROWS, WIDTH), tl.float32)
        for first_query in range(0, length, OTHERS):
            query = first_query + tl.arange(0, OTHERS)
            q = rows_of(qkv_ptr, begin, query, length, part, 3 * hidden, WIDTH)
            dout, taken_off, log_sums = of_queries(
                dout_ptr, out_ptr, log_sums_ptr, begin, query, length, part, hidden, WIDTH)
            scores = tl.dot(k, tl.trans(q), input_precision="tf32x3") * score_scale
            visible = seen(query[None, :], key[:, None], words, length, PREFIX)
            weights = tl.where(visible, tl.exp2(scores - log_sums[None, :]), 0.0)
            dweights = tl.dot(v, tl.trans(dout), input_precision="tf32x3")
            passed = weights
            if THRESHOLD > 0:
                factors = tl.trans(kept(begin + query, head, start, key_ptr, layer, drop_scale, HEADS, ROWS, THRESHOLD))
                passed, dweights = weights * factors, dweights * factors
            dv = tl.dot(passed.to(dout.dtype), dout, dv, input_precision="tf32x3")
            dscores = weights * (dweights - taken_off[None, :])
            dk = tl.dot(dscores.to(q.dtype), q, dk, input_precision="tf32x3")
        store_rows(dqkv_ptr, dk * (score_scale / LOG2_E), begin, key, length, part + hidden, 3 * hidden, WIDTH)
        store_rows(dqkv_ptr, dv, begin, key, length, part + 2 * hidden, 3 * hidden, WIDTH)

    for start in range(first, min(first + GROUP, length), ROWS):
        query = start + tl.arange(0, ROWS)
        q = rows_of(qkv_ptr, begin, query, length, part, 3 * hidden, WIDTH)
        dout, taken_off, log_sums = of_queries(dout_ptr, out_ptr, log_sums_ptr, begin, query, length, part, hidden, WIDTH)
        dq = tl.zeros((ROWS, WIDTH), tl.float32)
        for first_key in range(0, length, OTHERS):
            key = first_key + tl.arange(0, OTHERS)
            k = rows_of(qkv_ptr, begin, key, length, part + hidden, 3 * hidden, WIDTH)
            v = rows_of(qkv_ptr, begin, key, length, part + 2 * hidden, 3 * hidden, WIDTH)
            scores = tl.dot(q, tl.trans(k), input_precision="tf32x3") * score_scale
            visible = seen(query[:, None], key[None, :], words, length, PREFIX)
            weights = tl.where(visible, tl.exp2(scores - log_sums[:, None]), 0.0)
            dweights = tl.dot(dout, tl.trans(v), input_precision="tf32x3")
            if THRESHOLD > 0:
                dweights *= kept(begin + query, head, first_key, key_ptr, layer, drop_scale, HEADS, OTHERS, THRESHOLD)
            dscores = weights * (dweights - taken_off[:, None])
            dq = tl.dot(dscores.to(k.dtype), k, dq, input_precision="tf32x3")
        store_rows(dqkv_ptr, dq * (score_scale / LOG2_E), begin, query, length, part, 3 * hidden, WIDTH)

    for start in range(0, spare, ROWS):
        place = start + tl.arange(0, ROWS)
        for third in tl.static_range(3):
            nothing = tl.zeros((ROWS, WIDTH), tl.float32)
            store_rows(dqkv_ptr, nothing, begin, place, spare, part + third * hidden, 3 * hidden, WIDTH)


@triton.jit
def of_queries(
    dout_ptr, out_ptr, log_sums_ptr, begin, query, length, part, STRIDE: tl.constexpr, WIDTH: tl.constexpr
):
    """The outputs' gradient (queries, WIDTH), its product with the outputs (queries,), and the log sums to the base of 2.

    All 0 past the sequence's end: weights are 1 there, of a gradient and a query that are 0."""
    dout = rows_of(dout_ptr, begin, query, length, part, STRIDE, WIDTH)
    out = rows_of(out_ptr, begin, query, length, part, STRIDE, WIDTH)
    taken_off = tl.sum(dout.to(tl.float32) * out.to(tl.float32), axis=1)
    log_sums = tl.load(log_sums_ptr + query, mask=query < length, other=0) * LOG2_E
    return dout, taken_off, log_sums


def attend_backward_triton(
    dout: Tensor, qkv: Tensor, out: Tensor, log_sums: Tensor, heads: int, cumulative: Tensor, longest: int, masks: Masks
) -> Tensor:
    """`attend_backward_reference` by one kernel, arguments as there.

    Raises:
        ValueError: heads of a width, or a dtype, that there is no kernel for.
    """
    check(qkv, heads)
    dout, qkv, out, log_sums, cumulative = map(loadable, (dout, qkv, out, log_sums, cumulative))
    dqkv = torch.empty_like(qkv)
    with torch.cuda.device_of(qkv):
        _attend_backward_kernel[grid(heads, cumulative, longest)](
            dout, qkv, out, log_sums, dqkv, cumulative, *launched(qkv, heads, cumulative, masks),
            **tiles(qkv.dtype))
    return dqkv


def tiles(dtype: torch.dtype) -> dict[str, int]:
    """Of the backward, which holds four tiles of a head's width at a time."""
    rows = 32 if dtype.itemsize == 2 else 16
    return {"GROUP": GROUP, "ROWS": rows, "OTHERS": rows, "num_warps": 4, "num_stages": 1}
