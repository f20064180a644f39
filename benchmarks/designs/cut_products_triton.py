"""Design B of `cut`: two banded matrix products on the tensor cores. A level, one launch, a cell a program.

0..255 is exact in fp16; weights and the first product's result are two fp16 terms each, the second scaled by 2^11 so
that it stays clear of subnormals. Along a row the matrix holds a block of its own for each channel, so that the result
lies in the order of the output; two thirds of it are zeros.
"""

import triton
import triton.language as tl

LIFT = tl.constexpr(2048.0)  # of the second term


@triton.jit
def products_kernel(
    images_ptr,  # (B, S, S, 3) uint8
    down_ptr,  # (2, ROWS, S // GRID) fp16, both terms
    along_ptr,  # (2, 3 * S // GRID, COLUMNS) fp16
    shift_ptr,  # (COLUMNS,) fp32
    out_ptr,  # (B * GRID * GRID, P, P, 3)
    S: tl.constexpr, P: tl.constexpr, GRID: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    DEEP: tl.constexpr, WIDE: tl.constexpr,
):
    cell = tl.program_id(0)
    SIDE: tl.constexpr = S // GRID
    slot = cell % (GRID * GRID)
    corner = (cell // (GRID * GRID)).to(tl.int64) * (S * S * 3) + (slot // GRID * S + slot % GRID) * (SIDE * 3)
    rows, columns = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    value = tl.zeros([ROWS, COLUMNS], tl.float32)
    low = tl.zeros([ROWS, COLUMNS], tl.float32)
    for left in range(0, 3 * SIDE, WIDE):
        word = left + tl.arange(0, WIDE)
        first = tl.zeros([ROWS, WIDE], tl.float32)
        rest = tl.zeros([ROWS, WIDE], tl.float32)
        for top in range(0, SIDE, DEEP):
            y = top + tl.arange(0, DEEP)
            live = (y[:, None] < SIDE) & (word[None, :] < 3 * SIDE)
            pixel = tl.load(images_ptr + corner + y[:, None] * (S * 3) + word[None, :], mask=live, other=0)
            pixel = pixel.to(tl.float16)
            at = rows[:, None] * SIDE + y[None, :]
            inside = (rows[:, None] < P) & (y[None, :] < SIDE)
            first = tl.dot(tl.load(down_ptr + at, mask=inside, other=0.0), pixel, first)
            rest = tl.dot(tl.load(down_ptr + ROWS * SIDE + at, mask=inside, other=0.0), pixel, rest)
        first += rest * (1 / LIFT)
        high = first.to(tl.float16)
        remainder = ((first - high.to(tl.float32)) * LIFT).to(tl.float16)
        at = word[:, None] * COLUMNS + columns[None, :]
        inside = (word[:, None] < 3 * SIDE) & (columns[None, :] < 3 * P)
        along = tl.load(along_ptr + at, mask=inside, other=0.0)
        value = tl.dot(high, along, value)
        low = tl.dot(remainder, along, low)
        low = tl.dot(high, tl.load(along_ptr + 3 * SIDE * COLUMNS + at, mask=inside, other=0.0), low)
    value += low * (1 / LIFT) + tl.load(shift_ptr + columns)[None, :]
    at = rows[:, None] * (3 * P) + columns[None, :]
    fits = (rows[:, None] < P) & (columns[None, :] < 3 * P)
    tl.store(out_ptr + cell.to(tl.int64) * (3 * P * P) + at, value.to(out_ptr.dtype.element_ty), mask=fits)
