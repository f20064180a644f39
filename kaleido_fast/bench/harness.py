"""Timing: several ways to do one piece of work, in one process, alternating, median of the rounds.

On CUDA a round is timed by events around enough calls to fill `ROUND_MS`, on a CPU by the clock. What takes the device less
than the host needs to launch it is recorded as a CUDA graph, whose replays are timed.
"""

import statistics
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch

Call = Callable[[], object]

ROUND_MS = 5.0  # long against the microseconds that an event or the clock is wrong by
MOST_CALLS = 1000  # a round
RECORDED_CALLS = 10  # in a graph, so that launching it is small beside what it does


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds a call; the median round, the fastest and the slowest."""

    median_ms: float
    min_ms: float
    max_ms: float
    peak_mib: float  # memory a call adds on the device; 0 on a CPU, where it is not known
    timed: str = "calls"  # or "replays" of a CUDA graph, or why not


@dataclass(slots=True)
class _Way:
    """What is timed under one name."""

    call: Call
    peak_mib: float
    calls: int = 1  # of the work in one of `call`
    timed: str = "calls"
    repeats: int = 1  # of `call` in a round


def time_alternating(
    calls: Mapping[str, Call], device: torch.device, rounds: int, replayed: Collection[str] = ()
) -> dict[str, Timing]:
    """Time each of `calls` once a round, in turn, so that whatever slows the machine slows all of them.

    Args:
        replayed: names of those that are recorded as CUDA graphs on CUDA, with the time of the host's launches left out.
    Raises:
        ValueError: nothing to time, or no rounds.
    """
    if not calls or rounds < 1:
        raise ValueError(f"bench: {len(calls)} calls and rounds={rounds} must both be at least 1")
    ways = {name: _Way(call, _warm_up(call, device)) for name, call in calls.items()}
    for name, way in ways.items():
        if name in replayed and device.type == "cuda":
            _record(way, device)
        way.repeats = _repeats(way.call, device)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, way in ways.items():
            times[name].append(_round_ms(way.call, way.repeats, device) / way.calls)
    return {name: Timing(statistics.median(measured), min(measured), max(measured), ways[name].peak_mib, ways[name].timed)
            for name, measured in times.items()}


def _record(way: _Way, device: torch.device) -> None:
    """Put a CUDA graph of its calls in the place of a call; where it cannot be recorded, `timed` says why."""
    call, graph, stream = way.call, torch.cuda.CUDAGraph(), torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):  # as recording will, so that nothing is set up while it does
        call()
    torch.cuda.current_stream(device).wait_stream(stream)
    try:
        with torch.cuda.graph(graph):
            for _ in range(RECORDED_CALLS):
                call()
    except RuntimeError as error:
        way.timed = f"calls; as a graph: {str(error).splitlines()[0]}"
        torch.cuda.synchronize(device)  # raises where the device is lost
        return
    way.call, way.calls, way.timed = graph.replay, RECORDED_CALLS, "replays"


def _warm_up(call: Call, device: torch.device) -> float:
    """Compile and fill caches; then the MiB that one call adds at its peak."""
    for _ in range(2):
        call()
    if device.type != "cuda":
        return 0.0
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20


def _repeats(call: Call, device: torch.device) -> int:
    once = _round_ms(call, 1, device)
    return max(1, min(MOST_CALLS, round(ROUND_MS / max(once, 1e-6))))


def _round_ms(call: Call, repeats: int, device: torch.device) -> float:
    """Milliseconds a call, over `repeats` calls."""
    if device.type != "cuda":
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        return (time.perf_counter() - start) * 1e3 / repeats
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    begin.record()
    for _ in range(repeats):
        call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / repeats


def copy_gbps(device: torch.device, num_bytes: int, rounds: int) -> float:
    """GB/s of a copy of `num_bytes` on the device, what is read and what is written both counted: the roof of a kernel
    that only moves memory."""
    source = torch.empty(num_bytes, dtype=torch.uint8, device=device).fill_(1)
    target = torch.empty_like(source)
    timing = time_alternating({"copy": lambda: target.copy_(source)}, device, rounds)["copy"]
    return 2 * num_bytes / timing.median_ms / 1e6


def matmul_tflops(device: torch.device, dtype: torch.dtype, rounds: int) -> float:
    """TFLOP/s of a large matrix product on the device: the roof of model FLOP utilisation."""
    side = 8192 if device.type == "cuda" else 1024
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    timing = time_alternating({"product": lambda: left @ right}, device, rounds)["product"]
    return 2 * side**3 / timing.min_ms / 1e9
