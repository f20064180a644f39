"""Sums of rows by key, in a fixed order: how a table that was read by index gets its gradient on a GPU.

No atomics, so equal inputs give equal bits. The keys are sorted (stably: equal keys keep their order) and cut
into chunks of 32. A program walks one chunk and adds up each run of equal keys; a run that lies in its chunk
goes straight into the table, the pieces of one that crosses a chunk's end are kept aside (fp32, at most two a
chunk), and the chunk where it began adds them up, in order. So a word that stands in every text costs its
32nd part of serial work, not all of it. A key of -1 counts nowhere: its run comes first, and what lies before
the first key reads as -1, so that it never begins and is never stored.

A row of the table is cleared once and, where a key names it, written once; a value is read once.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

CHUNK = 32  # keys a program walks: short beside the thousands of rows of a frequent word, long beside its end
_PIECES = 8  # read at a time where a run is joined


@triton.jit(do_not_specialize=["num_keys"])
def _runs_kernel(
    values_ptr,  # (number of rows, H)
    keys_ptr,  # (n,) int32, ascending
    rows_ptr,  # (n,) int64, row of the values
    sums_ptr,  # (number of keys, H)
    pieces_ptr,  # (chunks, 2, H) fp32: of the chunk's first run; of its last, where that is another
    num_keys,  # n
    HIDDEN: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
):
    chunk = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    first = chunk * CHUNK
    opening = tl.load(keys_ptr + first)
    before = tl.load(keys_ptr + first - 1, mask=first > 0, other=-1)
    total = tl.zeros((BLOCK,), tl.float32)
    for step in range(min(CHUNK, num_keys - first)):
        place = first + step
        key = tl.load(keys_ptr + place)
        after = tl.load(keys_ptr + place + 1, mask=place + 1 < num_keys, other=-1)
        row = tl.load(rows_ptr + place, mask=key >= 0, other=0)
        total += tl.load(
            values_ptr + row * HIDDEN + column, mask=(column < HIDDEN) & (key >= 0), other=0
        ).to(tl.float32)
        ends = key != after
        whole = ends & ((key != opening) | (before != opening))
        piece = (ends | (step == CHUNK - 1)) & ~whole
        tl.store(
            sums_ptr + key.to(tl.int64) * HIDDEN + column, total.to(sums_ptr.dtype.element_ty),
            mask=(column < HIDDEN) & whole,
        )
        slot = chunk * 2 + tl.where(key == opening, 0, 1)
        tl.store(pieces_ptr + slot * HIDDEN + column, total, mask=(column < HIDDEN) & piece)
        total = tl.where(key == after, total, 0.0)


@triton.jit
def _join_kernel(
    pieces_ptr,  # (chunks, 2, H) fp32
    keys_ptr,  # (n,) int32, ascending
    ends_ptr,  # (chunks,) int64: how many keys are at most the chunk's last one
    sums_ptr,  # (number of keys, H)
    HIDDEN: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
    PIECES: tl.constexpr,
):
    chunk = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)[None, :]
    first = chunk * CHUNK
    opening = tl.load(keys_ptr + first)
    before = tl.load(keys_ptr + first - 1, mask=first > 0, other=-1)
    key = tl.load(keys_ptr + first + CHUNK - 1)
    crosses = key == tl.load(keys_ptr + first + CHUNK)
    begins_here = crosses & ((key != opening) | (before != opening))
    past = tl.where(begins_here, (tl.load(ends_ptr + chunk) - 1) // CHUNK + 1, 0)
    slot = chunk * 2 + tl.where(key == opening, 0, 1)
    total = tl.load(pieces_ptr + slot * HIDDEN + column, mask=(column < HIDDEN) & begins_here, other=0)
    for start in range(chunk + 1, past, PIECES):
        other = start + tl.arange(0, PIECES)[:, None].to(tl.int64)
        pieces = tl.load(
            pieces_ptr + other * 2 * HIDDEN + column, mask=(other < past) & (column < HIDDEN), other=0
        )
        total += tl.sum(pieces, axis=0, keep_dims=True)
    tl.store(
        sums_ptr + key.to(tl.int64) * HIDDEN + column, total.to(sums_ptr.dtype.element_ty),
        mask=(column < HIDDEN) & begins_here,
    )


def sum_rows(values: Tensor, keys: Tensor, rows: Tensor, table: Tensor) -> Tensor:
    """Sums like `table`: row k is that of values[rows[i]] over all i with keys[i] == k, in ascending i.

    Args:
        values: (any, H), contiguous; summed in fp32.
        keys: (n,) int32; one that has no row in the table, -1 or too large, counts nowhere: nothing is written outside.
        rows: (n,) int64.
        table: (number of keys, H), not read.
    """
    sums, num_keys, hidden = torch.zeros_like(table, memory_format=torch.contiguous_format), len(keys), table.shape[1]
    if not num_keys:
        return sums
    keys, order = torch.sort(torch.where((keys >= 0) & (keys < len(table)), keys, -1), stable=True)
    chunks = triton.cdiv(num_keys, CHUNK)
    pieces = values.new_empty((chunks, 2, hidden), dtype=torch.float32)
    tile = {"HIDDEN": hidden, "BLOCK": triton.next_power_of_2(hidden), "CHUNK": CHUNK}
    with torch.cuda.device_of(values):
        _runs_kernel[(chunks,)](values, keys, rows[order], sums, pieces, num_keys, **tile)
        if chunks > 1:
            ends = torch.searchsorted(keys, keys[CHUNK - 1 :: CHUNK].contiguous(), right=True)
            _join_kernel[(chunks - 1,)](pieces, keys, ends, sums, PIECES=_PIECES, **tile)
    return sums
