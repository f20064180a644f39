"""The coordinate system of kaleido patches: grids, positions, cells and locations (SPEC 1 and 2).

A level is an n x n grid over the locked image. Positions number all cells of all levels: the level's offset plus the
row-major slot. Everything here is a constant of the grids, computed on the host.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

GRIDS = (1, 2, 3, 4, 5)


def num_positions(grids: Sequence[int] = GRIDS) -> int:
    """Number of cells of all levels, K (55 for grids 1..5)."""
    return sum(n * n for n in grids)


def level_offsets(grids: Sequence[int] = GRIDS) -> tuple[int, ...]:
    """First position of each level: (0, 1, 5, 14, 30) for grids 1..5."""
    offsets, total = [], 0
    for n in grids:
        offsets.append(total)
        total += n * n
    return tuple(offsets)


def offset_of_grid(grids: Sequence[int], grid: int) -> int:
    """First position of the level whose grid is `grid`.

    Raises:
        ValueError: no level has that grid.
    """
    if grid not in grids:
        raise ValueError(f"grids={list(grids)}: no level of grid {grid}; add it, or leave out the task on it")
    return level_offsets(grids)[list(grids).index(grid)]


def positions_of_grid(grids: Sequence[int], grid: int) -> slice:
    """The positions of the level whose grid is `grid`; raises as `offset_of_grid`."""
    first = offset_of_grid(grids, grid)
    return slice(first, first + grid * grid)


def position_levels(grids: Sequence[int] = GRIDS) -> Tensor:
    """(K,) int64: the level's index in `grids` of each position."""
    return torch.tensor([level for level, n in enumerate(grids) for _ in range(n * n)], dtype=torch.int64)


def locations(grids: Sequence[int] = GRIDS) -> Tensor:
    """(K, 5) fp32: x1, x2, y1, y2, w*h of each cell in the locked square, each in [0, 1] (SPEC 2)."""
    cells = []
    for n in grids:
        for row in range(n):
            for column in range(n):
                cells.append((column / n, (column + 1) / n, row / n, (row + 1) / n, 1 / (n * n)))
    return torch.tensor(cells, dtype=torch.float32).reshape(-1, 5)


def uneven_grids(image_size: int, grids: Sequence[int]) -> list[int]:
    """The grids that do not cut a square of `image_size` into whole cells (SPEC 2.2)."""
    return [n for n in grids if image_size < n or image_size % n]
