"""plan as it is compiled for a GPU, run on a CPU: bit for bit what the reference draws."""

from collections.abc import Callable

import pytest
from torch import Tensor

from kaleido_fast.bench.ptx.driver import EmulatedDevice
from kaleido_fast.kernels.plan import plan_reference
from kaleido_fast.kernels.plan_triton import plan_triton
from tests.kernels.plan_cases import RULES, plan_of, rules_of
from tests.kernels.test_plan_triton import assert_equal, with_holes


@pytest.mark.parametrize("settings", [pytest.param(RULES["default"], id="default")])
def test_plans(device: EmulatedDevice, settings: dict[str, object], make_batch: Callable[..., dict[str, Tensor]]) -> None:
    batch, rules = with_holes(make_batch(16, num_tokens=20, bits=0.03, seed=len(settings))), rules_of(**settings)
    assert_equal(plan_of(batch, rules, plan_triton), plan_of(batch, rules, plan_reference))
