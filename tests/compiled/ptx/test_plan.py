"""plan as it is compiled for a GPU, run on a CPU: bit for bit what the reference draws."""

from collections.abc import Callable

import pytest
from torch import Tensor

from kaleido_fast.bench.ptx.driver import EmulatedDevice
from kaleido_fast.kernels import plan_triton
from kaleido_fast.kernels.plan_outputs import Plan
from kaleido_fast.kernels.plan_rules import PlanRules
from kaleido_fast.kernels.tasks import TaskRule
from tests.compiled.ptx.cases import SLOW, named
from tests.kernels.plan_cases import BLANK, FIVE, GREY, ROTATION, RULES, rules_of
from tests.kernels.test_plan_triton import assert_equal, assert_is_reference, golden_group, run, with_holes

MakeBatch = Callable[..., dict[str, Tensor]]
FURTHER = {  # tasks on levels that the paper gives another or none
    "a turn of 36 patches": {"tasks": (*FIVE[:3], TaskRule(6, "turn", draw=2)), "grids": (1, 2, 3, 6)},
    "a blank of nine": {"tasks": (ROTATION, TaskRule(3, "blank", 1), GREY, BLANK)},
}


@pytest.mark.parametrize("settings", named(RULES | FURTHER, {"default", "two swaps, two turns"}))
def test_rules(device: EmulatedDevice, settings: dict[str, object], make_batch: MakeBatch) -> None:
    batch = with_holes(make_batch(16, num_tokens=20, bits=0.03, seed=len(settings)))
    assert_is_reference(batch, rules_of(**settings), plan_triton)


@pytest.mark.parametrize(("num_samples", "num_tokens", "bits"), [
    (16, 2, 0.1), *(pytest.param(*case, marks=SLOW) for case in ((16, 64, 0.02), (16, 512, 0.0004))),
])
def test_shapes(device: EmulatedDevice, num_samples: int, num_tokens: int, bits: float, make_batch: MakeBatch) -> None:
    assert_is_reference(make_batch(num_samples, num_tokens, bits, seed=num_tokens), rules_of(), plan_triton)


@pytest.mark.slow
@pytest.mark.parametrize("device", [90], indirect=True)
@pytest.mark.parametrize(("num_samples", "num_tokens", "bits"), [(16, 3, 0.5), (16, 17, 0), (32, 33, 0.01), (16, 100, 0.002)])
def test_other_shapes(
    device: EmulatedDevice, num_samples: int, num_tokens: int, bits: float, make_batch: MakeBatch
) -> None:
    test_shapes(device, num_samples, num_tokens, bits, make_batch)


@pytest.mark.slow
@pytest.mark.parametrize("group", [2, 21])
def test_golden_groups(
    device: EmulatedDevice, group: int, golden_batch: dict[str, Tensor], golden_outputs: Plan, golden_rules: PlanRules
) -> None:
    batch, expected = golden_group(group, golden_batch, golden_outputs, golden_rules)
    assert_equal(run(batch, golden_rules, plan_triton), expected)
