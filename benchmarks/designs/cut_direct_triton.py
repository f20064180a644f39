"""Design A of `cut`: every output sums its taps in two dimensions, straight from the image. A level, one launch."""

import triton
import triton.language as tl


@triton.jit
def direct_kernel(
    images_ptr,  # (B, S, S, 3) uint8
    top_ptr, left_ptr,  # (P,) int32, first pixels
    down_ptr,  # (TAPS, P) fp32
    along_ptr,  # (TAPS, 3 * P) fp32, normalisation in it
    shift_ptr,  # (3 * P,) fp32
    out_ptr,  # (B * GRID * GRID, P, P, 3)
    S: tl.constexpr, P: tl.constexpr, GRID: tl.constexpr, TAPS: tl.constexpr, VALUES: tl.constexpr,
):
    cell = tl.program_id(0)
    slot, side = cell % (GRID * GRID), S // GRID
    corner = (cell // (GRID * GRID)).to(tl.int64) * (S * S * 3) + (slot // GRID * S + slot % GRID) * (side * 3)
    e = tl.program_id(1) * VALUES + tl.arange(0, VALUES)
    inside = e < 3 * P * P
    y, word = e // (3 * P), e % (3 * P)
    top = tl.load(top_ptr + y, mask=inside, other=0)
    left = tl.load(left_ptr + word // 3, mask=inside, other=0)
    pixel_ptr = images_ptr + corner + (top * S + left) * 3 + word % 3
    value = tl.load(shift_ptr + word)
    for i in range(TAPS):
        row = tl.zeros([VALUES], tl.float32)
        for j in tl.static_range(TAPS):
            pixel = tl.load(pixel_ptr + (i * S + j) * 3, mask=inside, other=0)
            row += pixel.to(tl.float32) * tl.load(along_ptr + j * 3 * P + word)
        value += row * tl.load(down_ptr + i * P + y, mask=inside, other=0.0)
    tl.store(out_ptr + cell.to(tl.int64) * (3 * P * P) + e, value.to(out_ptr.dtype.element_ty), mask=inside)
