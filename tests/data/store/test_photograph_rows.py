"""Which stored rows a sample reads: every turn, every greyed slot, every dtype; grids without them."""

import numpy as np
import pytest
import torch

from kaleido_fast.data.store.photograph_rows import num_stored_rows, read_rows, rows_read
from kaleido_fast.data.store.row_format import STORE_DTYPES, pack_rows, unpack_rows
from kaleido_fast.kernels.geometry import GRIDS


def _i32(values: list) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


def test_rows_are_those_of_the_spec() -> None:
    rows = rows_read(_i32([0, 1, 3, 0]), _i32([[0, 15], [3, 4], [7, 8], [-1, -1]]), GRIDS)
    assert num_stored_rows(GRIDS) == 74 and rows.shape == (4, 57)
    assert rows[:, 0].tolist() == [0, 55, 57, 0]
    assert (rows[:, 1:55] == torch.arange(1, 55)).all()
    assert rows[:3, 55:].tolist() == [[58, 73], [61, 62], [65, 66]]


@pytest.mark.parametrize(("grids", "count", "first"), [((8,), 64, 0), ((2, 1, 5), 33, 4), ((1, 4), 36, 0), ((4, 5), 57, 0)])
def test_other_grids_have_the_rows_their_tasks_need(grids: tuple[int, ...], count: int, first: int) -> None:
    assert num_stored_rows(grids) == count
    grey = _i32([[5]]) if 4 in grids else _i32([[]])
    rows = rows_read(_i32([2]), grey, grids)[0].tolist()
    positions = sum(grid * grid for grid in grids)
    turned = [positions + 1 if 1 in grids and place == first else place for place in range(positions)]
    assert rows == turned + ([positions + 3 * (1 in grids) + 5] if 4 in grids else [])


@pytest.mark.parametrize("num_features", [8, 7])
@pytest.mark.parametrize("dtype", STORE_DTYPES)
def test_reading_packed_rows_is_reading_unpacked_ones(dtype: str, num_features: int) -> None:
    features = np.random.default_rng(0).standard_normal((5, 74, num_features)).astype(np.float32)
    packed = torch.from_numpy(pack_rows(features, dtype))
    rotation, grey = _i32([0, 1, 2, 3, 0]), _i32([[0, 1], [14, 15], [2, 9], [3, 4], [5, 6]])
    expected = unpack_rows(packed, dtype)[torch.arange(5)[:, None], rows_read(rotation, grey, GRIDS)]
    found = read_rows(packed, dtype, GRIDS, rotation, grey)
    assert found.shape == (5, 57, num_features) and found.dtype == torch.float32 and torch.equal(found, expected)
