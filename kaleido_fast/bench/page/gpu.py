"""Sections of bench.md: what benchmarks/gpu_session.py measured on a GPU."""

from typing import Any

from kaleido_fast.bench.page.steps import DASHES, STEPS, loop_text, rounds_text, step_row
from kaleido_fast.bench.page.words import MISSING, WAYS

H100_TFLOPS = 790  # bf16 matrix products, what the goals are shares of
# Goals: of steps by shape, of other ways at the base shape, of loader and loop.
SAMPLES_PER_S = {"base": 5750, "base_computed": 3000}
TIMES_OURS = {"reference": 2.0, "visualbert-compiled": 1.5}
LOOP_GOALS = {"encode_photographs_per_s": 250, "end_to_end": {"store": 0.97, "photographs": 0.95}}


def of_all(gpu: dict[str, Any], section: Any) -> str:
    found = [text for name, results in gpu.items() if (text := section(name, results["parts"]))]
    return "\n\n".join(found) or MISSING


def _heading(name: str, parts: dict[str, Any]) -> str:
    where = parts.get("environment", {}).get("result", {})
    packages = where.get("packages", {})
    return (f"### {where.get('gpu', name)}\n\ntorch {packages.get('torch')}, triton {packages.get('triton')}, commit "
            f"{where.get('commit')} (`results/{name}.json`).")


def _red(parts: dict[str, Any]) -> str:
    """Why no figure may be printed; empty where all checks passed."""
    failed = [part for part in ("tests", "sanitizer") if not parts.get(part, {}).get("ok")]
    failed += [part for part in ("loop-tests",) if not parts.get(part, {"ok": True})["ok"]]
    return f"No figures: {' and '.join(failed)} did not pass on this device." if failed else ""


def kernels_text(name: str, parts: dict[str, Any]) -> str:
    if not parts.get("kernels", {}).get("ok"):
        return ""
    if _red(parts):
        return f"{_heading(name, parts)}\n\n{_red(parts)}"
    found = parts["kernels"]["result"]
    lines = ["| operation | size | way | ms | GB/s of the floor | share of a copy | goal | times ours |",
             "| --- | --- | --- | --- | --- | --- | --- | --- |"]
    for operation, case in found["kernels"].items():
        for way, row in case["ways"].items():
            goal = f"{case['goal_share']:.0%}" if way == "kaleido_fast" and case["goal_share"] else ""
            lines.append(f"| {operation} | {case['shape']} | {WAYS[way]} | {row['median_ms']:.3f} | {row['gbps']:,.0f} | "
                         f"{row['share_of_copy']:.0%} | {goal} | {row['times_ours']:.2f} |")
    table = "\n".join(lines)
    return (f"{_heading(name, parts)}\n\n{table}\n\nA copy: {found['copy_gbps']:,.0f} GB/s, read and written. Medians of "
            f"{found['rounds']} rounds.")


def training_text(name: str, parts: dict[str, Any]) -> str:
    """Steps of each shape beside their goals, the loader and the loop."""
    steps = {part.removeprefix("step-"): found["result"] for part, found in parts.items()
             if part.startswith("step-") and found.get("ok")}
    if not steps:
        return ""
    if _red(parts):
        return f"{_heading(name, parts)}\n\n{_red(parts)}"
    lines = [STEPS, DASHES]
    for shape, found in steps.items():
        goal = SAMPLES_PER_S.get(shape)
        lines.append(step_row(shape, found, f"{goal * found['peak_tflops'] / H100_TFLOPS:,.0f}" if goal else ""))
    said = [f"The goals are those of an H100 ({H100_TFLOPS} TFLOP/s) times this card's measured matrix peak over its. Medians "
            f"of {rounds_text(steps)} rounds.", "",
            "| shape | way | ms a step | times ours | goal |", "| --- | --- | --- | --- | --- |"]
    for shape, found in steps.items():
        for way, row in found["ways"].items():
            times = TIMES_OURS.get(way) if shape == "base" else None
            said.append(f"| {shape} | {WAYS.get(way, way)} | {row['median_ms']:.1f} | {row['times_ours']:.2f} | "
                        f"{times or ''} |")
        said += [f"| {shape} | {way} | {MISSING} ({why}) | | |" for way, why in found.get("left_out", {}).items()]
    blocks = [_heading(name, parts), "\n".join(lines), "\n".join(said), _longest(steps["base"]) if "base" in steps else ""]
    blocks += [loop_text(part, parts.get(part, {}), LOOP_GOALS) for part in ("loader", "end-to-end")]
    return "\n\n".join(block for block in blocks if block)


def _longest(found: dict[str, Any]) -> str:
    lines = ["| longest in a step of base | ms a step | calls |", "| --- | --- | --- |"]
    lines += [f"| `{row['name'][:80].replace('|', ' ')}` | {row['ms_a_step']:.2f} | {row['calls_a_step']:.0f} |"
              for row in found["profile"][:10]]
    return "\n".join(lines) if found["profile"] else ""
