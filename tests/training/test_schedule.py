"""Learning rates: the authors' published values and the linear schedule."""

import itertools

import pytest

from kaleido_fast.training.schedule import fitting_warmup, learning_rate


def test_authors_schedule_has_their_values() -> None:
    rates = [learning_rate(s, 20, base=1e-3, warmup_steps=2, schedule="authors") for s in range(4)]
    assert rates == pytest.approx([0, 0.000475, 0.0009, 0.00085], rel=1e-12)


def test_linear_rises_to_base_and_falls_to_nearly_zero() -> None:
    rates = [learning_rate(s, 100, base=2.0, warmup_steps=10, schedule="linear") for s in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9] == rates[10] == 2.0
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    assert rates[99] == pytest.approx(2 / 90)


def test_warm_up_is_the_same_before_and_after_the_total_is_known() -> None:
    early = [learning_rate(s, None, base=1.0, warmup_steps=50, schedule="linear") for s in range(20)]
    late = [learning_rate(s, 1000, base=1.0, warmup_steps=50, schedule="linear") for s in range(20)]
    assert early == late


def test_unknown_total_after_the_warm_up_is_refused() -> None:
    with pytest.raises(ValueError, match="past the warm-up"):
        learning_rate(50, None, base=1.0, warmup_steps=50, schedule="linear")


def test_short_runs_keep_half_for_the_decay() -> None:
    assert fitting_warmup(50, 1000) == 50
    assert fitting_warmup(50, 30) == 15
