"""cut on a GPU: all rows of all samples in one launch (`cut` in cut.py says what is computed).

A program takes part of one cell (cut_tiles.py) and applies the triangle filter as two sparse products, in fp32:

    sources[y, w] = sum over t of down[y, t] * image[first(y) + t, w]        w = 3 * pixel + channel
    values[y, v]  = shift[channel] + sum over t of along[v, t] * sources[y, w(v) + pace * t]

The first pass reads four bytes at a time and needs no pixel twice but the few rows two tiles share, which come
from cache. Its tile is handed on in shared memory (tl.gather), so that no output looks at more than one row's
taps. `along` has the normalisation in it, and for greys the luma. The second pass works in the order of the
output, turned where a level is: a quarter turn costs a few integers and stores stay 8 values wide.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from kaleido_fast.kernels.cut_filter import LUMA, normalisation, num_taps, triangle_taps
from kaleido_fast.kernels.cut_tiles import THREADS, VALUES, Level, levels_of, split_starts
from kaleido_fast.kernels.geometry import num_positions
from kaleido_fast.kernels.memory import begins_wide, loadable
from kaleido_fast.kernels.tasks import TaskRule, total_greyed

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
MOST_REGISTERS = 128  # a thread's: 16 warps on a processor; every level fits without spilling
MOST_BYTES = 2**31 - 1  # of an image with what lies between its rows: offsets inside it are of 32 bits


@triton.jit
def _turned(e, turns, y0, x0, P: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr):
    """Where the values of a tile of ROWS x COLS pixels at (y0, x0) go when their patch is turned.

    `e` numbers the values in the order of the output: COLS x ROWS pixels after an odd number of quarter turns.
    Returns each value's row and column in the upright tile, its channel, and its row and word in the output.
    """
    RATIO: tl.constexpr = COLS // ROWS
    narrow = e // (3 * ROWS)  # both orders from one division: COLS is a multiple of ROWS
    odd = turns % 2 == 1
    a = tl.where(odd, narrow, narrow // RATIO)
    m = e % (3 * ROWS) + tl.where(odd, 0, narrow % RATIO * (3 * ROWS))
    b = m // 3
    y = tl.where(odd, tl.where(turns == 1, b, ROWS - 1 - b), a)
    x = tl.where(odd, a, tl.where(turns == 0, b, COLS - 1 - b))
    row = tl.where(odd, tl.where(turns == 1, P - 1 - x0 - a, x0 + a), tl.where(turns == 0, y0 + a, P - 1 - y0 - a))
    start = tl.where(odd, tl.where(turns == 1, y0, P - y0 - ROWS), tl.where(turns == 0, x0, P - x0 - COLS))
    return y, x, m % 3, row, start * 3 + m


@triton.jit
def _upright(e, y0, x0, COLS: tl.constexpr):
    """`_turned` by no turn."""
    a, m = e // (3 * COLS), e % (3 * COLS)
    return a, m // 3, m % 3, y0 + a, x0 * 3 + m


@triton.jit
def _copy(
    image_ptr, out_ptr, weights_ptr, item,
    ROW: tl.constexpr, P: tl.constexpr, VALUES: tl.constexpr, LEVELS: tl.constexpr, AT: tl.constexpr,
):
    """A cell of P x P pixels: normalised, nothing to filter."""
    GRID: tl.constexpr = LEVELS[AT].grid
    ROWS: tl.constexpr = LEVELS[AT].rows
    STEPS: tl.constexpr = LEVELS[AT].steps
    PARTS: tl.constexpr = LEVELS[AT].parts
    slot = item // PARTS
    cell_ptr = image_ptr + slot // GRID * (P * ROW) + slot % GRID * (3 * P)
    out_ptr += (LEVELS[AT].first_row + slot) * (P * P * 3)
    part = item % PARTS
    e = tl.arange(0, VALUES)
    row, word = e // (3 * P), e % (3 * P)
    scale = tl.load(weights_ptr + LEVELS[AT].weights_at + word)
    shift = tl.load(weights_ptr + word)
    for step in tl.range(0, STEPS, loop_unroll_factor=4):  # four tiles' loads in flight
        y = (part * STEPS + step) * ROWS + row
        inside = (row < ROWS) & (y < P)
        pixel = tl.load(cell_ptr + y * ROW + word, mask=inside, other=0)
        value = pixel.to(tl.float32) * scale + shift
        tl.store(out_ptr + y * (3 * P) + word, value.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _filter(
    image_ptr, out_ptr, weights_ptr, places_ptr, slots_ptr, item, turns,
    ROW: tl.constexpr, P: tl.constexpr, VALUES: tl.constexpr, LEVELS: tl.constexpr, AT: tl.constexpr,
):
    """A part of one cell, filtered down its columns and along its rows, tile by tile."""
    GRID: tl.constexpr = LEVELS[AT].grid
    SIDE: tl.constexpr = LEVELS[AT].side
    PACE: tl.constexpr = LEVELS[AT].pace
    TAPS: tl.constexpr = LEVELS[AT].taps
    UNROLL: tl.constexpr = LEVELS[AT].unroll
    ACROSS: tl.constexpr = LEVELS[AT].across
    CHUNK: tl.constexpr = LEVELS[AT].chunk
    WORDS: tl.constexpr = LEVELS[AT].width * 3
    VECTOR: tl.constexpr = LEVELS[AT].vector
    ROWS: tl.constexpr = LEVELS[AT].rows
    COLS: tl.constexpr = LEVELS[AT].cols
    TILES: tl.constexpr = LEVELS[AT].tiles
    SOURCES: tl.constexpr = LEVELS[AT].sources
    along_ptr = weights_ptr + LEVELS[AT].weights_at  # (P, 3, ACROSS)
    down_ptr = along_ptr + 3 * P * ACROSS  # (TAPS, P)
    top_ptr = places_ptr + LEVELS[AT].places_at  # (P,), then (P,) and (splits,)

    split = item % LEVELS[AT].splits
    first_tile = item // LEVELS[AT].splits * LEVELS[AT].steps
    x0 = split * COLS
    left = tl.multiple_of(tl.load(top_ptr + 2 * P + split), VECTOR)
    out_ptr += LEVELS[AT].first_row * (P * P * 3)

    group = tl.arange(0, SOURCES // VECTOR)
    source_y = (group // (WORDS // VECTOR))[:, None]
    source_word = (group % (WORDS // VECTOR) * VECTOR)[:, None] + tl.arange(0, VECTOR)[None, :]
    e = tl.arange(0, VALUES)
    t = tl.arange(0, CHUNK)
    used = e < ROWS * COLS * 3
    if LEVELS[AT].turns >= 0:
        y, x, channel, _, _ = _turned(e, turns, 0, x0, P, ROWS, COLS)
    else:
        y, x, channel, _, _ = _upright(e, 0, x0, COLS)
    known = used & (x0 + x < P)
    word = tl.load(top_ptr + P + x0 + x, mask=known, other=left) - left
    at = tl.where(known, y * WORDS + word * 3 + (channel if PACE == 3 else 0), 0)
    along = (((x0 + x) * 3 + channel) * ACROSS)[:, None] + t[None, :]
    weight = tl.load(along_ptr + along, mask=known[:, None], other=0.0)
    shift = tl.load(weights_ptr + channel)
    taps_end, across_end = TAPS, ACROSS
    if TAPS > UNROLL:  # read where there is a loop: one the compiler cannot unroll, which would cost registers
        taps_end = tl.load(top_ptr + 2 * P + LEVELS[AT].splits)
    if ACROSS > CHUNK:
        across_end = tl.load(top_ptr + 2 * P + LEVELS[AT].splits + 1)
    for tile in range(first_tile, tl.minimum(first_tile + LEVELS[AT].steps, LEVELS[AT].cells * TILES)):
        cell = tile // TILES
        y0 = tile % TILES * ROWS
        slot = cell
        if PACE == 1:
            slot = tl.load(slots_ptr + (LEVELS[AT].slots + cell))
        place = tl.minimum(tl.maximum(slot, 0), GRID * GRID - 1)
        cell_ptr = image_ptr + place // GRID * (SIDE * ROW) + (place % GRID * SIDE + left) * 3
        live = (source_y < ROWS) & (y0 + source_y < P)
        top = tl.load(top_ptr + y0 + source_y, mask=live, other=0)
        pixel_ptr = cell_ptr + top * ROW + source_word
        sources = tl.zeros([SOURCES // VECTOR, VECTOR], tl.float32)
        for body in range(0, taps_end, UNROLL):
            for k in tl.static_range(UNROLL):
                down = tl.load(down_ptr + (body + k) * P + y0 + source_y, mask=live, other=0.0)
                pixel = tl.load(pixel_ptr + (body + k) * ROW, mask=live, other=0)
                sources += down * pixel.to(tl.float32)
        flat = tl.reshape(sources, [SOURCES])
        value = shift
        for body in range(0, across_end, CHUNK):
            if ACROSS > CHUNK:
                weight = tl.load(along_ptr + (along + body), mask=known[:, None], other=0.0)
            taps = tl.gather(flat, tl.reshape(at[:, None] + ((body + t) * PACE)[None, :], [VALUES * CHUNK]), 0)
            value += tl.sum(tl.reshape(taps, [VALUES, CHUNK]) * weight, axis=1)
        if PACE == 1:
            value = tl.where(slot >= 0, value, 0.0)
        if LEVELS[AT].turns >= 0:
            _, _, _, row, column = _turned(e, turns, y0, x0, P, ROWS, COLS)
        else:
            _, _, _, row, column = _upright(e, y0, x0, COLS)
        fits = used & (row >= 0) & (row < P) & (column >= 0) & (column < 3 * P)
        tl.store(out_ptr + cell * (P * P * 3) + row * (3 * P) + column, value.to(out_ptr.dtype.element_ty), mask=fits)


@triton.jit
def cut_kernel(
    images_ptr,  # (B, S, S, 3) uint8; pixels packed, rows ROW apart, samples sample_stride
    labels_ptr,  # (B, tasks) int32, a row label_stride
    slots_ptr,  # (B, sum of counts) int32, a row slot_stride
    weights_ptr,  # fp32: the shift (3,), then every level's weights
    places_ptr,  # int32: every level's first pixels
    out_ptr,  # (B, RECORDS, P, P, 3)
    sample_stride, label_stride, slot_stride,
    ROW: tl.constexpr, P: tl.constexpr, RECORDS: tl.constexpr, ITEMS: tl.constexpr,
    VALUES: tl.constexpr, LEVELS: tl.constexpr,
):
    sample = (tl.program_id(0) // ITEMS).to(tl.int64)
    item = tl.program_id(0) % ITEMS
    image_ptr = images_ptr + sample * sample_stride
    out_ptr += sample * (RECORDS * P * P * 3)
    for at in tl.static_range(len(LEVELS)):
        if (item >= LEVELS[at].first_item) & (item < LEVELS[at].first_item + LEVELS[at].items):
            inner = item - LEVELS[at].first_item
            if LEVELS[at].copied:
                _copy(image_ptr, out_ptr, weights_ptr, inner, ROW, P, VALUES, LEVELS, at)
            else:
                turns = 0
                if LEVELS[at].turns >= 0:
                    turns = tl.load(labels_ptr + sample * label_stride + LEVELS[at].turns) & 3
                _filter(
                    image_ptr, out_ptr, weights_ptr, places_ptr, slots_ptr + sample * slot_stride, inner, turns,
                    ROW, P, VALUES, LEVELS, at,
                )


def cut_triton(
    images: Tensor, labels: Tensor, slots: Tensor, *, grids: Sequence[int], tasks: Sequence[TaskRule], patch_size: int,
    mean: Sequence[float], std: Sequence[float], dtype: torch.dtype = torch.float32,
) -> Tensor:
    """`cut` by the kernel, arguments as there; pixels, rows, labels and slots that are not packed in memory, and
    what begins at no multiple of 16 bytes, are copied first.

    Raises:
        ValueError: the dtype is none the kernel writes.
    """
    if dtype not in DTYPES:
        raise ValueError(
            f"cut: dtype={dtype} on {images.device} must be one of {list(DTYPES)}; cut on the CPU for others"
        )
    batch, side = images.shape[:2]
    packed = images.stride()[2:] == (3, 1) and 3 * side <= images.stride(1) <= MOST_BYTES // side
    images = images if packed and begins_wide(images) else loadable(images)
    labels, slots = loadable(labels), loadable(slots)
    records = num_positions(grids) + total_greyed(tasks)
    out = images.new_empty((batch * records, patch_size, patch_size, 3), dtype=dtype)
    levels = levels_of(side, tuple(grids), patch_size, tuple(tasks))
    weights, places = _tables(levels, patch_size, tuple(mean), tuple(std), images.device)
    constants = launch_constants(images.stride(1), patch_size, records, levels)
    if batch:
        with torch.cuda.device_of(images):
            cut_kernel[(batch * constants["ITEMS"],)](
                images, labels, slots, weights, places, out, images.stride(0), labels.shape[1], slots.shape[1],
                **constants, num_warps=THREADS // 32, maxnreg=MOST_REGISTERS,
            )
    return out.permute(0, 3, 1, 2)


def launch_constants(pitch: int, patch_size: int, records: int, levels: tuple[Level, ...]) -> dict[str, object]:
    """The kernel's constexpr arguments: bytes between an image's rows, P, rows of a sample, its levels."""
    items = levels[-1].first_item + levels[-1].items
    return {
        "ROW": pitch, "P": patch_size, "RECORDS": records, "ITEMS": items, "VALUES": VALUES, "LEVELS": levels,
    }


@lru_cache(maxsize=64)
def _tables(
    levels: tuple[Level, ...], patch_size: int, mean: tuple[float, ...], std: tuple[float, ...], device: torch.device,
) -> tuple[Tensor, Tensor]:
    """The kernel's fp32 weights and int32 places, computed in float64 on the host, once a geometry and device."""
    scale, shift = normalisation(mean, std)
    weights = torch.zeros(max(level.weights_at + patch_size * (level.taps + 3 * level.across) for level in levels),
                          dtype=torch.float64)
    weights[: 3 * patch_size] = shift.repeat(patch_size)
    places: list[int] = []
    for level in levels:
        top, down = triangle_taps(level.side, patch_size, level.taps)
        first, taps = triangle_taps(level.side, patch_size, num_taps(level.side, patch_size))
        along = torch.zeros(patch_size, 3, level.across, dtype=torch.float64)
        if level.pace == 1:
            luma = (taps[:, :, None] * torch.tensor(LUMA, dtype=torch.float64)).flatten(1)
            along[:, :, : luma.shape[1]] = luma[:, None]
        else:
            along[:, :, : taps.shape[1]] = taps[:, None]
        along *= scale[:, None]
        both = torch.cat((along.flatten(), down.T.flatten()))
        weights[level.weights_at : level.weights_at + len(both)] = both
        places += [*top.tolist(), *first.tolist(), *split_starts(level, patch_size), level.taps, level.across]
    return weights.float().to(device), torch.tensor(places, dtype=torch.int32).to(device)
