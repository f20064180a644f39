"""Settings of `plan`: what goes together, and the budgets."""

import numpy as np
import pytest
import torch

from kaleido_fast.kernels.plan_rules import PERMUTATIONS, PlanRules, token_budget

IDS = {"mask_id": 103, "ordinary_first": 104, "ordinary_last": 999}
FIXED_SCALE = {
    "grids": (8,), "blank_grid": 8, "num_blank": 6, "num_grey": 0, "rotation": False, "jigsaw": False,
    "camouflage": False,
}


def test_defaults_are_the_papers() -> None:
    rules = PlanRules(**IDS)
    assert (rules.num_positions, rules.num_rows) == (55, 57)
    assert rules.patch_budgets == {3: 1, 4: 2, 5: 3}


def test_fixed_scale_ablation() -> None:
    rules = PlanRules(**IDS, **FIXED_SCALE)
    assert (rules.num_positions, rules.num_rows) == (64, 64)
    assert rules.patch_budgets == {8: 6}


def test_permutations_are_lexicographic() -> None:
    assert len(PERMUTATIONS) == 24 and list(PERMUTATIONS) == sorted(set(PERMUTATIONS))
    assert PERMUTATIONS[0] == (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"grids": (8,)}, r"no level of grid 1 in grids \[8\]"),
        ({"grids": (1, 3, 4, 5)}, "no level of grid 2"),
        ({"grids": (1, 2, 4, 5)}, "no level of grid 3"),
        ({"grids": (1, 2, 3, 5)}, "no level of grid 4"),
        ({"grids": (1, 2, 3, 4)}, "no level of grid 5"),
        ({"blank_grid": 8}, "no level of grid 8"),
        ({"grids": (1, 2, 2, 3, 4, 5)}, r"grids=\[1, 2, 2, 3, 4, 5\] must be different numbers from 1 on"),
        ({"grids": (0, 1)}, r"grids=\[0, 1\] must be different numbers from 1 on"),
        ({"grids": (1, 2, 3, 4, 5, 6)}, "make 91 positions, an alignment has 64 bits; take out a grid"),
        ({"blank_grid": 4}, "blank_grid=4 must be 5 or more"),
        ({"num_grey": 17}, r"num_grey=17 must lie in 0\.\.16, the slots of grid 4; 0 switches it off"),
        ({"num_blank": -1}, r"num_blank=-1 must lie in 0\.\.25"),
        ({"max_masked_tokens": -1}, r"max_masked_tokens=-1 must be 0 \(mask none\) or more"),
        ({"ordinary_last": 103}, r"ordinary ids 104\.\.103 must be ids from 0 on, first <= last"),
        ({"mask_id": -1}, "mask_id=-1 and"),
    ],
)
def test_what_does_not_go_together_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PlanRules(**IDS | settings)


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
