"""Settings of `plan`: what goes together, and the budgets."""

import numpy as np
import pytest
import torch

from kaleido_fast.kernels.plan_rules import token_budget
from kaleido_fast.kernels.tasks import TaskRule
from tests.kernels.plan_cases import FIVE, ROTATION, RULES, rules_of


@pytest.mark.parametrize(("settings", "positions", "rows"), [
    ({}, 55, 57), (RULES["fixed scale"], 64, 64), (RULES["two of blank, grey"], 55, 62), (RULES["no levels"], 0, 0),
])
def test_positions_and_rows(settings: dict[str, object], positions: int, rows: int) -> None:
    rules = rules_of(**settings)
    assert (rules.num_positions, rules.num_rows) == (positions, rows)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"grids": (8,)}, r"grids=\[8\]: no level of grid 1; add it, or leave out the task on it"),
        ({"grids": (1, 3, 4, 5)}, "grids=.*: no level of grid 2;"),
        ({"grids": (1, 2, 4, 5)}, "grids=.*: no level of grid 3;"),
        ({"grids": (1, 2, 3, 5)}, "grids=.*: no level of grid 4;"),
        ({"grids": (1, 2, 3, 4)}, "grids=.*: no level of grid 5;"),
        ({"tasks": (TaskRule(8, "blank", 3),)}, "grids=.*: no level of grid 8;"),
        ({"grids": (1, 2, 2, 3, 4, 5)}, r"grids=\[1, 2, 2, 3, 4, 5\] must be different numbers from 1 on"),
        ({"grids": (0, 1)}, r"grids=\[0, 1\] must be different numbers from 1 on"),
        ({"grids": (1, 2, 3, 4, 5, 6)},
         r"grids=\[1, 2, 3, 4, 5, 6\] make 91 positions, an alignment has 64 bits; take out a grid"),
        ({"tasks": (*FIVE, TaskRule(3, "blank", 2))},
         "tasks: swap and blank both change the level of grid 3; a level has one task: take one out"),
        ({"tasks": (ROTATION, TaskRule(2, "turn"))}, "tasks: turn on grid 1 and on grid 2 both have draw=0; give each its own"),
        ({"max_masked_tokens": -1}, r"max_masked_tokens=-1 must be 0 \(mask none\) or more"),
        ({"ordinary_last": 103}, r"mask_id=103 and ordinary ids 104\.\.103 must be ids from 0 on, first <= last"),
        ({"mask_id": -1}, "mask_id=-1 and"),
    ],
)
def test_what_does_not_go_together_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        rules_of(**settings)


def test_token_budget_by_hand() -> None:
    """SPEC 6: max(1, (3 * maskable + 10) // 20), at most max_masked_tokens, 0 if nothing is maskable."""
    expected = {-2: 0, 0: 0, 1: 1, 9: 1, 10: 2, 16: 2, 17: 3, 62: 9, 63: 9, 64: 10, 500: 10}
    assert {n: int(token_budget(n, 10)) for n in expected} == expected
    assert int(token_budget(62, 4)) == 4
    assert int(token_budget(62, 0)) == 0


def test_token_budget_is_the_same_on_host_and_device() -> None:
    counts = np.arange(-2, 512)
    host = token_budget(counts, 10)
    assert np.array_equal(host, token_budget(torch.from_numpy(counts), 10).numpy())
    assert host.tolist() == [int(token_budget(int(n), 10)) for n in counts]
