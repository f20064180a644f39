"""`kaleido-fast bench kernels`: each operation against its reference, eager and compiled, and against a copy."""

import gc
from collections.abc import Iterable
from typing import Any

import torch

from kaleido_fast.bench.harness import copy_gbps, time_alternating
from kaleido_fast.bench.kernel_cases import KernelCase, Scale, kernel_cases

COPY_BYTES = 1 << 30


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
    roof = copy_gbps(device, COPY_BYTES if device.type == "cuda" else 1 << 26, rounds)
    figures = {}
    for name in chosen:
        figures[name] = measure_case(makers[name](), device, roof, rounds)
        gc.collect()
        torch._dynamo.reset()
    return {"copy_gbps": roof, "rounds": rounds, "kernels": figures}


def measure_case(case: KernelCase, device: torch.device, roof: float, rounds: int) -> dict[str, Any]:
    """The figures of one case; `roof` is a copy's GB/s."""
    timings = time_alternating(case.calls, device, rounds)
    ours = timings["kaleido_fast"].median_ms
    ways = {}
    for name, timing in timings.items():
        gbps = case.floor_bytes / timing.median_ms / 1e6
        ways[name] = {"median_ms": timing.median_ms, "min_ms": timing.min_ms, "max_ms": timing.max_ms,
                      "peak_mib": timing.peak_mib, "gbps": gbps, "share_of_copy": gbps / roof,
                      "times_ours": timing.median_ms / ours}
    return {"shape": case.shape, "floor_bytes": case.floor_bytes, "goal_share": case.goal_share, "ways": ways}


def kernel_table(figures: dict[str, Any]) -> str:
    """The figures as a Markdown table."""
    lines = ["| operation | size | way | ms | GB/s of the floor | share of a copy | against ours |",
             "| --- | --- | --- | --- | --- | --- | --- |"]
    for name, case in figures["kernels"].items():
        for way, row in case["ways"].items():
            lines.append(f"| {name} | {case['shape']} | {way} | {row['median_ms']:.3f} | {row['gbps']:.0f} | "
                         f"{row['share_of_copy']:.0%} | {row['times_ours']:.2f} x |")
    return "\n".join([*lines, "", f"A copy on this device: {figures['copy_gbps']:.0f} GB/s, read and written."])
