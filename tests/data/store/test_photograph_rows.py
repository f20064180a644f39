"""Which stored rows a sample reads: every turn, every greyed slot, every dtype; other grids and tasks."""

import numpy as np
import pytest
import torch

from kaleido_fast.data.store.photograph_rows import PhotographRows
from kaleido_fast.data.store.row_format import STORE_DTYPES, pack_rows, unpack_rows
from kaleido_fast.kernels.geometry import GRIDS
from kaleido_fast.kernels.plan import clean_plan
from kaleido_fast.kernels.tasks import TaskRule
from tests.data.store.plans import turned_and_greyed
from tests.kernels.plan_cases import FIVE

PAPERS = PhotographRows.of_tasks(GRIDS, FIVE)


def _i32(values: list) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


def test_rows_are_those_of_the_spec() -> None:
    rows = PAPERS.read_by(turned_and_greyed(_i32([0, 1, 3, 0]), _i32([[0, 15], [3, 4], [7, 8], [-1, -1]])))
    assert PAPERS == PhotographRows(GRIDS, turned=True, greyed=(4,)) and PAPERS.num_rows == 74 and rows.shape == (4, 57)
    assert rows[:, 0].tolist() == [0, 55, 57, 0]
    assert (rows[:, 1:55] == torch.arange(1, 55)).all()
    assert rows[:3, 55:].tolist() == [[58, 73], [61, 62], [65, 66]]


@pytest.mark.parametrize(("grids", "count", "first"), [((8,), 64, 0), ((2, 1, 5), 33, 4), ((1, 4), 36, 0), ((4, 5), 57, 0)])
def test_other_grids_have_the_rows_their_tasks_need(grids: tuple[int, ...], count: int, first: int) -> None:
    stored = PhotographRows.of_tasks(grids, FIVE)
    assert stored.num_rows == count
    grey = _i32([[5]]) if 4 in grids else _i32([[]])
    rows = stored.read_by(turned_and_greyed(_i32([2]), grey, grids))[0].tolist()
    positions = sum(grid * grid for grid in grids)
    turned = [positions + 1 if 1 in grids and place == first else place for place in range(positions)]
    assert rows == turned + ([positions + 3 * (1 in grids) + 5] if 4 in grids else [])


def test_a_further_grey_task_has_its_rows_behind_the_others() -> None:
    further = TaskRule(3, "grey", 2)
    stored = PhotographRows.of_tasks(GRIDS, (*FIVE, further))
    assert stored.greyed == (4, 3) and stored.num_rows == 74 + 9
    tasks = (further, TaskRule(1, "turn"))
    plan = clean_plan(_i32([[0]]))._replace(labels=_i32([[-100, 3]]), slots=_i32([[8, 0]]), tasks=tasks)
    rows = stored.read_by(plan)[0].tolist()
    assert rows == [57, *range(1, 55), 74 + 8, 74 + 0]


@pytest.mark.parametrize(("task", "name"), [(TaskRule(3, "turn"), "turn"), (TaskRule(3, "grey", 2), "grey")])
def test_a_task_without_rows_is_refused(task: TaskRule, name: str) -> None:
    assert not PAPERS.cover(task) and all(PAPERS.cover(other) for other in (*FIVE, TaskRule(3, "blank", 2)))
    plan = clean_plan(_i32([[0]]))._replace(labels=_i32([[1]]), slots=_i32([[0] * task.num_slots]), tasks=(task,))
    advice = "compute the features, or encode the" if name == "grey" else "compute the features$"  # a turn cannot be stored
    with pytest.raises(ValueError, match=f"feature store: no rows of {name} on grid 3; {advice}"):
        PAPERS.read_by(plan)


@pytest.mark.parametrize("num_features", [8, 7])
@pytest.mark.parametrize("dtype", STORE_DTYPES)
def test_reading_packed_rows_is_reading_unpacked_ones(dtype: str, num_features: int) -> None:
    features = np.random.default_rng(0).standard_normal((5, 74, num_features)).astype(np.float32)
    packed = torch.from_numpy(pack_rows(features, dtype))
    plan = turned_and_greyed(_i32([0, 1, 2, 3, 0]), _i32([[0, 1], [14, 15], [2, 9], [3, 4], [5, 6]]))
    expected = unpack_rows(packed, dtype)[torch.arange(5)[:, None], PAPERS.read_by(plan)]
    found = PAPERS.read(packed, dtype, plan)
    assert found.shape == (5, 57, num_features) and found.dtype == torch.float32 and torch.equal(found, expected)
