"""Positions, offsets and locations of the kaleido levels."""

import pytest
import torch

from kaleido_fast.kernels.geometry import (
    GRIDS, level_offsets, locations, num_positions, offset_of_grid, position_levels, positions_of_grid, uneven_grids,
)


@pytest.mark.parametrize(
    ("grids", "count", "offsets"),
    [((1, 2, 3, 4, 5), 55, (0, 1, 5, 14, 30)), ((8,), 64, (0,)), ((3, 5), 34, (0, 9)), ((), 0, ())],
)
def test_levels_lie_end_to_end(grids: tuple[int, ...], count: int, offsets: tuple[int, ...]) -> None:
    assert num_positions(grids) == count
    assert level_offsets(grids) == offsets
    assert position_levels(grids).tolist() == [level for level, n in enumerate(grids) for _ in range(n * n)]


def test_offset_is_found_by_grid() -> None:
    assert offset_of_grid((5, 3), 3) == 25
    assert positions_of_grid((5, 3), 3) == slice(25, 34)


def test_missing_level_is_named() -> None:
    with pytest.raises(ValueError, match=r"^grids=\[8\]: no level of grid 4; add it, or leave out the task on it"):
        offset_of_grid((8,), 4)


def test_locations_are_row_major_cells_of_the_unit_square() -> None:
    """x1, x2, y1, y2, w*h of each cell (SPEC 2)."""
    cells = locations((1, 2, 3))
    assert cells.shape == (14, 5) and cells.dtype == torch.float32
    assert cells[0].tolist() == [0, 1, 0, 1, 1]
    assert cells[2].tolist() == [0.5, 1, 0, 0.5, 0.25]  # level 2, slot 1: upper right
    assert cells[3].tolist() == [0, 0.5, 0.5, 1, 0.25]
    width, height = cells[:, 1] - cells[:, 0], cells[:, 3] - cells[:, 2]
    torch.testing.assert_close(width * height, cells[:, 4])
    assert locations(()).shape == (0, 5)


@pytest.mark.parametrize(("size", "uneven"), [
    (60, []), (120, []), (240, []), (224, [3, 5]), (100, [3]), (0, [1, 2, 3, 4, 5]), (2, [3, 4, 5])])
def test_grids_that_do_not_cut_a_square_into_whole_cells(size: int, uneven: list[int]) -> None:
    assert uneven_grids(size, GRIDS) == uneven
