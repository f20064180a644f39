"""The fast path (packed sequences, operators) against the authors' numbers."""

import pytest

from tests.parity.fast_path import FastPath
from tests.parity.golden_cases import CASES, Case, check_forward, check_gradients, check_predict, check_steps

IN_FP32 = Case("small", "fp32"), Case("small_b1", "fp32")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward(case: Case) -> None:
    check_forward(FastPath(case), case, absent=FastPath.absent)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients(case: Case) -> None:
    check_gradients(FastPath(case), case)


@pytest.mark.parametrize("case", IN_FP32, ids=str)
def test_predict(case: Case) -> None:
    check_predict(FastPath(case), case)


def test_four_steps_of_their_adam_and_schedule() -> None:
    case = Case("small", "fp32")
    check_steps(FastPath(case), case)
