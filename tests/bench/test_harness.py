"""Timing: whoever does more work takes longer, baselines alternate, and what cannot be timed is refused."""

import time
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from kaleido_fast.bench.harness import RECORDED_CALLS, copy_gbps, time_alternating

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


class Card:
    """What torch.cuda is asked for, on a card that takes a millisecond for a call and counts what is launched."""

    def __init__(self, refuses: bool = False) -> None:
        self.clock_ms, self.launched, self.recording, self.refuses = 0.0, list[str](), None, refuses

    def work(self, name: str, ms: float) -> None:
        self.launched.append(name)
        if self.recording is not None:
            self.recording.work.append((name, ms))
        else:
            self.clock_ms += ms

    @contextmanager
    def graph(self, graph: Any) -> Any:
        self.recording = graph
        try:
            yield
            if self.refuses:
                raise RuntimeError("operation not permitted when stream is capturing\nmore")
        finally:
            self.recording = None

    def cuda(self) -> SimpleNamespace:
        card = self

        class Graph:
            def __init__(self) -> None:
                self.work = list[tuple[str, float]]()

            def replay(self) -> None:
                card.launched.append("replay")
                card.clock_ms += sum(ms for _, ms in self.work)

        class Event:
            def __init__(self, enable_timing: bool = False) -> None:
                self.at = 0.0

            def record(self) -> None:
                self.at = card.clock_ms

            def synchronize(self) -> None:
                pass

            def elapsed_time(self, other: "Event") -> float:
                return other.at - self.at

        stream = SimpleNamespace(wait_stream=lambda other: None)
        return SimpleNamespace(
            CUDAGraph=Graph, Event=Event, Stream=lambda device: stream, current_stream=lambda device: stream, graph=self.graph,
            stream=lambda one: nullcontext(), synchronize=lambda device: None, reset_peak_memory_stats=lambda device: None,
            memory_allocated=lambda device: 0, max_memory_allocated=lambda device: 1 << 20)


def test_on_a_gpu_a_short_call_is_timed_by_replaying_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card()
    monkeypatch.setattr(torch, "cuda", card.cuda())
    calls = {"ours": lambda: card.work("ours", 1.0), "eager": lambda: card.work("eager", 4.0)}
    found = time_alternating(calls, torch.device("cuda"), rounds=3, replayed=("ours",))
    assert (found["ours"].timed, found["eager"].timed) == ("replays", "calls")
    assert (found["ours"].median_ms, found["eager"].median_ms) == (1.0, 4.0), "a call's, of a graph of several"
    assert found["ours"].peak_mib == 1.0
    timed = card.launched[card.launched.index("replay"):]
    assert "ours" not in timed and timed.count("replay") == 4, "one to see how long it takes, one a round"
    assert card.launched.count("ours") == 2 + 1 + 1 + RECORDED_CALLS


def test_what_cannot_be_recorded_is_called_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(refuses=True)
    monkeypatch.setattr(torch, "cuda", card.cuda())
    found = time_alternating({"ours": lambda: card.work("ours", 1.0)}, torch.device("cuda"), rounds=3, replayed=("ours",))
    assert found["ours"].timed == "calls; as a graph: operation not permitted when stream is capturing"
    assert found["ours"].median_ms == 1.0 and "replay" not in card.launched
