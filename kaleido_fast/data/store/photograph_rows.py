"""Which of a photograph's stored rows a sample reads (SPEC 2 'Stored rows' and 'Rows').

    rows      of grids 1..5   hold
    K         0..54           the clean positions
    3         55..57          the patch of grid 1, turned by 1, 2, 3 quarter turns; none without that grid
    16        58..73          the greyed slots of grid 4; none without that grid

The plan is drawn on the device; so the host uploads all rows of a sample, packed, and the step takes those it reads.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from kaleido_fast.data.store.row_format import StoreDtype, unpack_rows
from kaleido_fast.kernels.geometry import num_positions, offset_of_grid
from kaleido_fast.kernels.plan_rules import GREY_GRID, ROTATION_GRID

TURNS = (1, 2, 3)
WIDE = 4  # bytes that an int32 copies at once


def read_rows(
    packed: Tensor, dtype: StoreDtype, grids: Sequence[int], rotation: Tensor, grey_slots: Tensor
) -> Tensor:
    """(B, K + G, F) fp32: the rows of SPEC 2 'Rows' under a plan, on the device.

    Args:
        packed: (B, R, row_bytes) uint8 (row_format.py), R = num_stored_rows(grids).
        rotation: (B,) int32, quarter turns; grey_slots: (B, G) int32, -1 in a hole.
    """
    rows = rows_read(rotation, grey_slots, grids)
    first = torch.arange(len(rows), device=rows.device)[:, None] * packed.shape[1]
    flat = packed.flatten(0, 1)
    wide = flat.view(torch.int32) if flat.shape[1] % WIDE == 0 else flat
    taken = wide.index_select(0, (first + rows).flatten()).view(torch.uint8)
    return unpack_rows(taken.unflatten(0, tuple(rows.shape)), dtype)


def num_stored_rows(grids: Sequence[int]) -> int:
    """R, 74 for grids 1..5."""
    return num_positions(grids) + num_turned(grids) + num_greyed(grids)


def num_turned(grids: Sequence[int]) -> int:
    """Rows of turned patches."""
    return len(TURNS) if ROTATION_GRID in grids else 0


def num_greyed(grids: Sequence[int]) -> int:
    """Rows of greyed slots."""
    return GREY_GRID**2 if GREY_GRID in grids else 0


def rows_read(rotation: Tensor, grey_slots: Tensor, grids: Sequence[int]) -> Tensor:
    """(B, K + G) int64: the stored row of each row to encode; arguments as in `read_rows`."""
    positions = num_positions(grids)
    rows = torch.arange(positions + grey_slots.shape[1], device=rotation.device).repeat(len(rotation), 1)
    if num_turned(grids):
        place, turns = offset_of_grid(grids, ROTATION_GRID), rotation.long()
        rows[:, place] = torch.where(turns > 0, positions + turns - 1, place)
    rows[:, positions:] = positions + num_turned(grids) + grey_slots.long().clamp(min=0)
    return rows
