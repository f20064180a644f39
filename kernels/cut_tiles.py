"""How `cut`'s programs share the work of a geometry: the tile of every level, chosen by computed cost.

A program takes a part of one cell: `cols` of its P output columns, some of its P output rows, `rows` at a time.
For each such tile it filters down the columns of `rows` x `width` source pixels, then along the rows. Tiles are
flat, powers of two in size, so the cost of a choice is mostly what it pads. The choice is a function of S, P and
the grids alone: the same on every worker and every card.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import gcd

from kaleido_fast.kernels.cut_filter import num_taps, triangle_taps
from kaleido_fast.kernels.tasks import TaskRule, first_slots

THREADS = 128
# Instructions of a thread, counted in the machine code for sm_90 (benchmarks/cut_designs.py).
PER_SOURCE_TAP = 3.5  # extract the byte, convert, multiply and add; a fourth of two loads
PER_SOURCE = 0.5  # store it for the second pass
PER_VALUE_TAP = 2.25  # load from shared memory, multiply and add
PER_CHUNK = 40.0 * THREADS  # one more than the first
PER_VALUE = 1.5
PER_TILE = 100.0 * THREADS
PER_PROGRAM = 450.0 * THREADS  # where each value comes from and goes to
VALUES = 8 * THREADS  # of an output tile: 8 a thread, one 16-byte store of bf16
MOST_SOURCES = 3072  # 24 a thread: more registers leave too few warps to hide loads
MOST_WORK = 2**19  # instructions of a program's threads; more would leave processors idle at the end
UPRIGHT = WHOLE = -1  # of a level: not turned; all of its cells
MOST_LOADS = 25  # of pixels, a thread's in one loop body: more registers again


@dataclass(frozen=True)
class Level:
    """One level's constants in the kernel; the slots of a grey task are a level of their own."""

    grid: int
    side: int  # S / grid
    cells: int
    turns: int  # column of the labels that says how often its patches are turned; -1: upright
    slots: int  # first column of the slots that are its cells; -1: all of the level, in order
    copied: bool  # side == P: nothing to filter
    pace: int  # words between taps along a row: 3, or 1 where a tap is one channel of a pixel, for luma
    taps: int  # down a column, a multiple of `unroll`
    unroll: int
    across: int  # taps along a row, in words, a multiple of `chunk`
    chunk: int
    width: int  # source pixels of a tile's row, a multiple of `vector`
    vector: int  # pixel values of one load
    rows: int  # of a tile
    cols: int
    splits: int  # tiles side by side in a cell
    tiles: int  # one below the other
    sources: int  # size of the first pass's tile
    steps: int  # tiles of a program, which may go on into the next cells
    parts: int  # programs of a split; of a cell where it is copied
    first_item: int = 0  # of a sample's programs
    items: int = 0
    first_row: int = 0  # of a sample's rows
    weights_at: int = 0  # where this level's weights and places start in their tables
    places_at: int = 0


@lru_cache(maxsize=64)
def levels_of(image_size: int, grids: tuple[int, ...], patch_size: int, tasks: tuple[TaskRule, ...]) -> tuple[Level, ...]:
    """The levels of a geometry, the slots of grey tasks last."""
    turns = {task.grid: column for column, task in enumerate(tasks) if task.effect == "turn"}
    kinds = [(grid, grid * grid, turns.get(grid, UPRIGHT), WHOLE) for grid in grids]
    kinds += [(task.grid, task.num_slots, UPRIGHT, first) for task, first in zip(tasks, first_slots(tasks), strict=True)
              if task.effect == "grey"]
    levels, item, weight, place, row = [], 0, 3 * patch_size, 0, 0
    for grid, cells, turned, slots in kinds:
        level = _level(image_size // grid, patch_size, grid, cells, turned, slots)
        items = level.parts * (level.cells if level.copied else level.splits)
        weight = -(-weight // 4) * 4  # 16-byte loads
        levels.append(replace(level, first_item=item, items=items, first_row=row, weights_at=weight, places_at=place))
        item += items
        row += cells
        weight += patch_size * (level.taps + 3 * level.across)
        place += 2 * patch_size + level.splits + 2
    return tuple(levels)


def split_starts(level: Level, patch_size: int) -> list[int]:
    """First source pixel of each of a level's splits."""
    first, _ = triangle_taps(level.side, patch_size, num_taps(level.side, patch_size))
    starts = first[:: level.cols].tolist()
    return [min(start // level.vector * level.vector, level.side - level.width) for start in starts]


def _level(side: int, size: int, grid: int, cells: int, turns: int, slots: int) -> Level:
    choices = [choice for cols in _columns(size) for choice in _choices(side, size, cols, grid, cells, turns, slots)]
    fitting = [choice for choice in choices if _worked(choice) <= MOST_SOURCES]
    return min(fitting, key=_cost) if fitting else min(choices, key=lambda choice: (choice.sources, _cost(choice)))


def _columns(size: int) -> Sequence[int]:
    """Widths that keep stores of 8 values whole where P allows them at all."""
    widths = {-(-size // splits) for splits in range(1, size + 1)}
    return sorted(width for width in widths if 3 * width <= VALUES and (size % 8 or width % 8 == 0))


def _choices(side: int, size: int, cols: int, grid: int, cells: int, turns: int, slots: int) -> list[Level]:
    needed, pace, upright = num_taps(side, size), 3 if slots == WHOLE else 1, turns == UPRIGHT
    words = needed if pace == 3 else 3 * needed
    chunk = min(4, _power_of_two(words))  # 4 weights are one load
    across = -(-words // chunk) * chunk
    vector = gcd(side, 4)  # 4 in a row a thread: its 16-byte stores to shared memory meet no other's banks
    width = _width(side, size, cols, vector)
    overrun = (across - words) * pace
    copied = side == size and upright and pace == 3 and 3 * size <= VALUES  # whole rows a tile
    choices = []
    for rows in range(1, min(size, VALUES // (3 * cols)) + 1):
        if (upright or _turns(size, rows, cols)) and (not copied or cols == size):
            tiles = -(-size // rows)
            taps, unroll = _unrolled(needed, side, -(-rows * 3 * width // (THREADS * vector)))
            level = Level(
                grid=grid, side=side, turns=turns, slots=slots, copied=copied, pace=pace, taps=taps, unroll=unroll,
                across=across, chunk=chunk,
                width=width, vector=vector, rows=rows, cols=cols, splits=-(-size // cols), tiles=tiles, cells=cells,
                steps=1, parts=1, sources=_power_of_two(rows * 3 * width + overrun),
            )
            steps = max(1, int(MOST_WORK // _tile_cost(level)))
            in_turn = tiles if copied else tiles * cells
            parts = -(-in_turn // steps)
            choices.append(replace(level, parts=parts, steps=-(-in_turn // parts)))
    return choices


def _turns(size: int, rows: int, cols: int) -> bool:
    """Whether a tile can be written turned by a quarter: `cols` rows of `rows` pixels."""
    return cols % rows == 0 and (size % 8 != 0 or rows % 8 == 0)


def _unrolled(needed: int, side: int, loads: int) -> tuple[int, int]:
    """Taps, rounded up to whole loop bodies without leaving the side, and taps of a body; `loads` for each tap."""
    for bodies in range(-(-needed * loads // MOST_LOADS), needed + 1):
        unroll = -(-needed // bodies)
        if bodies * unroll <= side:
            return bodies * unroll, unroll
    return needed, 1


@lru_cache(maxsize=1024)
def _width(side: int, size: int, cols: int, vector: int) -> int:
    first, weights = triangle_taps(side, size, num_taps(side, size))
    begin = first[::cols] // vector * vector
    last = first[[min(start + cols, size) - 1 for start in range(0, size, cols)]] + weights.shape[1]
    return min(side, -(-int((last - begin).max()) // vector) * vector)


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()


def _tile_cost(level: Level) -> float:
    if level.copied:
        return VALUES * (PER_SOURCE_TAP + PER_VALUE)
    first = _worked(level) * (PER_SOURCE_TAP * level.taps + PER_SOURCE)
    second = VALUES * (PER_VALUE_TAP * level.across + PER_VALUE) + PER_CHUNK * (level.across // level.chunk - 1)
    return first + second + PER_TILE


def _worked(level: Level) -> int:
    """Source pixel values computed: what no thread needs, the compiler leaves out."""
    together = THREADS * level.vector
    return -(-level.rows * 3 * level.width // together) * together


def _cost(level: Level) -> float:
    """Instructions of a level, all cells."""
    if level.copied:
        return level.cells * level.tiles * _tile_cost(level)
    programs = level.parts * level.splits
    return level.cells * level.tiles * level.splits * _tile_cost(level) + programs * PER_PROGRAM
