"""Times on a GPU: medians of interleaved rounds, beside a device-to-device copy of as many bytes in the same rounds."""

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch

from benchmarks.kernel_cases import COMPILED, KERNEL, Case

WARM_UP, ROUNDS = 5, 50
AHEAD_CYCLES = 2_000_000  # the device waits about a millisecond, so that the host's launches never are what is timed
COPY = "copy"


@dataclass(frozen=True)
class Result:
    """One case; times are medians."""

    case: str
    samples: int
    moved_bytes: int
    ms: dict[str, float]  # by run, and of the copy
    gbps: float  # of the kernel, by the bytes it must move
    copy_share: float  # of the copy's bandwidth
    times_compiled: float  # how many times as fast as the compiled reference
    peak_mib: float  # of the kernel's call, above its inputs
    goal: tuple[float, float] | None

    def as_row(self) -> dict[str, object]:
        return asdict(self)


def measure(case: Case, rounds: int = ROUNDS) -> Result:
    """Check parity, then time; an AssertionError of the check leaves no figure."""
    case.check()
    source = torch.empty(case.moved_bytes // 2, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    ms = interleaved_ms(case.runs | {COPY: lambda: target.copy_(source)}, rounds)
    return Result(
        case=case.name, samples=case.samples, moved_bytes=case.moved_bytes, ms=ms,
        gbps=case.moved_bytes / ms[KERNEL] / 1e6, copy_share=ms[COPY] / ms[KERNEL],
        times_compiled=ms[COMPILED] / ms[KERNEL], peak_mib=_peak_mib(case.runs[KERNEL]), goal=case.goal,
    )


def interleaved_ms(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median milliseconds of each run; every round calls each once, so that clocks and neighbours hit all alike."""
    for run in runs.values():
        for _ in range(WARM_UP):
            run()
    pairs: dict[str, list[tuple[torch.cuda.Event, torch.cuda.Event]]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            pairs[name].append(_timed(run))
        torch.cuda.synchronize()  # results of a round are freed before the next
    return {name: statistics.median(a.elapsed_time(b) for a, b in events) for name, events in pairs.items()}


def _timed(run: Callable[[], object]) -> tuple[torch.cuda.Event, torch.cuda.Event]:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(AHEAD_CYCLES)
    start.record()
    run()
    end.record()
    return start, end


def _peak_mib(run: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    return (torch.cuda.max_memory_allocated() - before) / 2**20
