"""Timing: whoever does more work takes longer, baselines alternate, and what cannot be timed is refused."""

import time

import pytest
import torch

from kaleido_fast.bench.harness import copy_gbps, time_alternating

CPU = torch.device("cpu")


def test_twice_the_work_takes_about_twice_as_long() -> None:
    found = time_alternating({"one": lambda: time.sleep(0.004), "two": lambda: time.sleep(0.008)}, CPU, rounds=5)
    assert 4.0 <= found["one"].min_ms <= found["one"].median_ms <= found["one"].max_ms
    assert 1.6 < found["two"].min_ms / found["one"].min_ms < 2.4


def test_the_ways_alternate() -> None:
    order: list[str] = []

    def call(name: str) -> None:
        order.append(name)
        time.sleep(0.006)  # longer than a round: one call each

    time_alternating({"a": lambda: call("a"), "b": lambda: call("b")}, CPU, rounds=3)
    assert order[-6:] == ["a", "b"] * 3


@pytest.mark.parametrize(("calls", "rounds"), [({}, 3), ({"a": lambda: None}, 0)])
def test_nothing_to_time_is_refused(calls: dict, rounds: int) -> None:
    with pytest.raises(ValueError, match="must both be at least 1"):
        time_alternating(calls, CPU, rounds)


def test_a_copy_counts_both_ways() -> None:
    assert 0.1 < copy_gbps(CPU, 1 << 24, rounds=3) < 5000
