"""`kaleido-fast bench kernels`: each operation against its reference, eager and compiled, and against a copy."""

import gc
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

import torch

from kaleido_fast.bench.harness import Timing, copy_gbps, time_alternating
from kaleido_fast.bench.kernel_cases import KernelCase, Scale, kernel_cases
from kaleido_fast.bench.session.report import device_is_lost, reason

COPY_BYTES = 1 << 30
OURS = "kaleido_fast"


def bench_kernels(device: torch.device, names: Iterable[str] = (), scale: Scale = Scale(), rounds: int = 15) -> dict[str, Any]:
    """Time the cases `names` (all by default).

    Returns:
        {"copy_gbps", "rounds", "kernels": {case: {"shape", "floor_bytes", "goal_share", "ways": {name: times and shares}}}}.
    Raises:
        ValueError: an unknown case.
    """
    makers = kernel_cases(device, scale)
    chosen = list(names) or list(makers)
    for name in chosen:
        if name not in makers:
            raise ValueError(f"bench kernels: unknown case '{name}'; known are {', '.join(makers)}")
    roof = measured_roof(device, rounds)
    figures = {}
    for name in chosen:
        figures[name] = measure_case(makers[name](), device, roof, rounds)
        forget()
    return {"copy_gbps": roof, "rounds": rounds, "kernels": figures}


def measured_roof(device: torch.device, rounds: int) -> float:
    """GB/s of a copy too large for the caches."""
    return copy_gbps(device, COPY_BYTES if device.type == "cuda" else 1 << 26, rounds)


def forget() -> None:
    """Let go of a case's tensors and compiled code."""
    gc.collect()
    torch._dynamo.reset()


def measure_case(
    case: KernelCase, device: torch.device, roof: float, rounds: int, tell: Callable[[dict[str, Any]], None] = lambda _: None,
    left_out: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """The figures of one case: ours first, then each other way in turn with ours; one that fails is left out with its reason.

    Args:
        roof: a copy's GB/s.
        tell: takes what is there so far, after each way.
        left_out: ways that are not to be timed, and why.
    Raises:
        Exception: ours fails, or another way that leaves the device unusable.
    """
    ours = {OURS: case.calls[OURS]}
    alone = time_alternating(ours, device, rounds, case.replayed)[OURS]
    figures: dict[str, Any] = {
        "shape": case.shape, "floor_bytes": case.floor_bytes, "goal_share": case.goal_share,
        "ways": {OURS: _figures(case, alone, roof, 1.0)}, "left_out": dict(left_out)}
    tell(figures)
    for name, call in case.calls.items():
        if name == OURS or name in left_out:
            continue
        try:
            timings = time_alternating(ours | {name: call}, device, rounds, case.replayed)
        except Exception as error:
            if device_is_lost():
                raise
            figures["left_out"][name] = reason(error)
        else:
            ratio = timings[name].median_ms / timings[OURS].median_ms
            figures["ways"][name] = _figures(case, timings[name], roof, ratio)
        tell(figures)
    return figures


def _figures(case: KernelCase, timing: Timing, roof: float, times_ours: float) -> dict[str, Any]:
    gbps = case.floor_bytes / timing.median_ms / 1e6
    return asdict(timing) | {"gbps": gbps, "share_of_copy": gbps / roof, "times_ours": times_ours}


def kernel_table(figures: dict[str, Any]) -> str:
    """The figures as a Markdown table."""
    lines = ["| operation | size | way | ms | GB/s of the floor | share of a copy | against ours |",
             "| --- | --- | --- | --- | --- | --- | --- |"]
    for name, case in figures["kernels"].items():
        for way, row in case["ways"].items():
            lines.append(f"| {name} | {case['shape']} | {way} | {row['median_ms']:.3f} | {row['gbps']:.0f} | "
                         f"{row['share_of_copy']:.0%} | {row['times_ours']:.2f} x |")
        lines += [f"| {name} | {case['shape']} | {way} | not measured: {why} | | | |" for way, why in case["left_out"].items()]
    return "\n".join([*lines, "", f"A copy on this device: {figures['copy_gbps']:.0f} GB/s, read and written."])
