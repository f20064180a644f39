"""Sections of bench.md: what benchmarks/gpu_session.py measured on a GPU."""

from collections.abc import Callable
from typing import Any

from kaleido_fast.bench.page.issued import NO_SHARES, Shares, goal_text
from kaleido_fast.bench.page.steps import DASHES, STEPS, loop_text, rounds_text, step_row
from kaleido_fast.bench.page.words import MISSING, WAYS

H100_TFLOPS = 790  # bf16 matrix products, what the goals are shares of
# Goals: of steps by shape, of other ways at the base shape, of loader and loop.
SAMPLES_PER_S = {"base": 5750, "base_computed": 3000}
TIMES_OURS = {"reference": 2.0, "visualbert-compiled": 1.5}
LOOP_GOALS = {"encode_photographs_per_s": 250, "end_to_end": {"store": 0.97, "photographs": 0.95}}
LOOPS = ("loop", "loader", "end-to-end")
CHECKS = ("tests", "loop-tests", "sanitizer", "racecheck")
OURS = "kaleido_fast"
THAT_IS_OURS = "that is ours"  # why a way was not timed that would be the same


def of_all(gpu: dict[str, Any], section: Callable[[str, dict[str, Any]], str]) -> str:
    """A section of all result files, by their names."""
    texts = [text for name, results in gpu.items() if (text := section(name, results["parts"]))]
    return "\n\n".join(texts) or MISSING


def kernels_text(name: str, parts: dict[str, Any], shares: Shares = NO_SHARES) -> str:
    """Each operation beside other ways to do it; empty where that was not asked for. `shares`: from `largest_shares`."""
    result = _result(parts, "kernels")
    if not result.get("kernels"):
        return _blocks(_heading(name, parts), _warnings(parts), MISSING) if "kernels" in parts else ""
    lines = ["| operation | size | way | ms | GB/s of the floor | share of a copy | goal | times ours |",
             "| --- | --- | --- | --- | --- | --- | --- | --- |"]
    card = str(_result(parts, "environment").get("gpu", ""))
    for operation, case in result["kernels"].items():
        for way, row in case["ways"].items():
            goal = goal_text(operation, case["goal_share"], card, shares) if way == OURS else ""
            lines.append(f"| {operation} | {case['shape']} | {WAYS[way]} | {row['median_ms']:.3f}{_timed(row)} | "
                         f"{row['gbps']:,.0f} | {row['share_of_copy']:.0%} | {goal} | {row['times_ours']:.2f} |")
        lines += [f"| {operation} | {case['shape']} | {WAYS[way]} | {MISSING} ({_cell(why)}) | | | | |"
                  for way, why in case["left_out"].items()]
    lines += [f"| {operation} | | | {MISSING} ({_cell(why)}) | | | | |"
              for operation, why in parts["kernels"].get("failed", {}).items() if operation not in result["kernels"]]
    about = (f"A copy: {result['copy_gbps']:,.0f} GB/s, read and written. Medians of {result['rounds']} rounds; r: replays of "
             "a CUDA graph, without the host's launches.")
    return _blocks(_heading(name, parts), _warnings(parts), "\n".join(lines), about)


def _timed(row: dict[str, Any]) -> str:
    return " r" if row.get("timed") == "replays" else ""


def training_text(name: str, parts: dict[str, Any]) -> str:
    """Steps of each shape beside their goals, the loader and the loop; empty where nothing of it was asked for."""
    steps = {part.removeprefix("step-"): result for part in parts
             if part.startswith("step-") and (result := _result(parts, part)).get("ways")}
    loops = [loop_text(part, _result(parts, part), LOOP_GOALS) for part in LOOPS]
    if not steps and not any(loops):
        asked = any(part.startswith("step-") or part in LOOPS for part in parts)
        return _blocks(_heading(name, parts), _warnings(parts), MISSING) if asked else ""
    blocks = [_heading(name, parts), _warnings(parts)]
    if steps:
        blocks += [_steps(steps), _ways(steps, parts), _longest(steps["base"]) if "base" in steps else ""]
    return _blocks(*blocks, *loops)


def _steps(steps: dict[str, Any]) -> str:
    lines = [STEPS, DASHES]
    for shape, result in steps.items():
        goal = SAMPLES_PER_S.get(shape)
        lines.append(step_row(shape, result, f"{goal * result['peak_tflops'] / H100_TFLOPS:,.0f}" if goal else ""))
    attention = "; ".join(f"{shape}: {result['attention']}, {'' if result['compile'] else 'not '}compiled"
                          for shape, result in steps.items() if "attention" in result)
    return "\n".join(lines) + (f"\n\nAttention of {attention}." if attention else "")


def _ways(steps: dict[str, Any], parts: dict[str, Any]) -> str:
    """Other ways beside ours, those of the part `baselines-base` too; what failed and what was left out."""
    lines = [f"The goals are those of an H100 ({H100_TFLOPS} TFLOP/s) times this card's measured matrix peak over its. Medians "
             f"of {rounds_text(steps)} rounds.", "",
             "| shape | way | ms a step | times ours | goal |", "| --- | --- | --- | --- | --- |"]
    for shape, result in steps.items():
        sources = [(f"step-{shape}", result), (f"baselines-{shape}", _result(parts, f"baselines-{shape}"))]
        rows: dict[str, str] = {}
        for part, one in sources:
            for way, row in one.get("ways", {}).items():
                goal = TIMES_OURS.get(way) if shape == "base" else None
                rows.setdefault(way, f"{row['median_ms']:.1f} | {row['times_ours']:.2f} | {goal or ''}")
            for way, why in (one.get("left_out", {}) | parts.get(part, {}).get("failed", {})).items():
                if why != THAT_IS_OURS:
                    rows.setdefault(way, f"{MISSING} ({_cell(why)}) | |")
        lines += [f"| {shape} | {WAYS.get(way, way)} | {row} |" for way, row in rows.items()]
    return "\n".join(lines)


def _longest(result: dict[str, Any]) -> str:
    lines = ["| longest in a step of base | ms a step | calls |", "| --- | --- | --- |"]
    lines += [f"| `{row['name'][:80].replace('|', ' ')}` | {row['ms_a_step']:.2f} | {row['calls_a_step']:.0f} |"
              for row in result["profile"][:10]]
    return "\n".join(lines) if result["profile"] else ""


def _heading(name: str, parts: dict[str, Any]) -> str:
    where = _result(parts, "environment")
    packages = where.get("packages", {})
    return (f"### {where.get('gpu', name)}\n\ntorch {packages.get('torch')}, triton {packages.get('triton')}, commit "
            f"{where.get('commit')} (`results/{name}.json`).")


def _warnings(parts: dict[str, Any]) -> str:
    """What is to be known of the figures: checks that failed or did not run, parts that have none."""
    lines = []
    for check in CHECKS:
        status, result = parts.get(check, {}).get("status", "not run"), _result(parts, check)
        if status in ("failed", "running"):
            red = ", ".join(result.get("red", ())) or _failures(parts[check])
            lines.append(f"**{check} did not pass on this device: {red}.** Figures of what it checks may be of wrong results.")
        elif status == "skipped" or (status == "not run" and check != "loop-tests"):
            why = parts.get(check, {}).get("why", "not asked for")
            lines.append(f"{check} did not run: {why}.")
    for part, outcome in parts.items():
        if part not in CHECKS and outcome["status"] in ("failed", "skipped", "running"):
            lines.append(f"{part}: {outcome.get('why') or _failures(outcome)}.")
    return "\n".join(f"- {_cell(line)}" for line in lines)


def _failures(outcome: dict[str, Any]) -> str:
    return "; ".join(f"{what}: {why}" for what, why in outcome.get("failed", {}).items()) or "was cut"


def _result(parts: dict[str, Any], part: str) -> dict[str, Any]:
    """The figures of a part, whole or not."""
    return parts.get(part, {}).get("result", {})


def _cell(text: str) -> str:
    """Text that breaks no table."""
    return text.replace("|", "/").replace("\n", " ")


def _blocks(*texts: str) -> str:
    return "\n\n".join(text for text in texts if text)
