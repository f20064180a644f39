"""Section of bench.md: training on a CPU, as benchmarks/bench_training.py measured it."""

import json
from pathlib import Path

from kaleido_fast.bench.page.steps import DASHES, STEPS, loop_text, rounds_text, step_row
from kaleido_fast.bench.page.words import MISSING, WAYS


def training_cpu_text(path: Path) -> str:
    """What benchmarks/bench_training.py measured."""
    if not path.exists():
        return f"{MISSING} `python benchmarks/bench_training.py` makes the figures; it needs no GPU."
    found = json.loads(path.read_text(encoding="utf-8"))
    lines = [STEPS, DASHES]
    for shape, row in found["shapes"].items():
        lines.append(step_row(shape, row, "") if row else f"| {shape} | {MISSING} | | | | | | | |")
    ways = ["| shape | way | ms a step | fastest | slowest | times ours |", "| --- | --- | --- | --- | --- | --- |"]
    for shape, row in found["shapes"].items():
        ways += [f"| {shape} | {WAYS.get(way, way)} | {times['median_ms']:.1f} | {times['min_ms']:.1f} | "
                 f"{times['max_ms']:.1f} | {times['times_ours']:.2f} |" for way, times in (row["ways"] if row else {}).items()]
    demo, packing, goals = found["shapes"]["demo"], found["packing"], found["goals"]
    said = (f"{found['threads']} thread, {rounds_text(found['shapes'])} rounds; texts {demo['texts']}, {demo['words']:,} "
            f"words. Goals, at both widths: {goals['speedup_over_reference']:g} times the reference path, not slower than "
            "VisualBERT, eager.")
    packed = (f"At the length of a title ({packing['text_tokens'][0]} to {packing['text_tokens'][1]} tokens) padding to "
              f"{packing['padded_to']} takes {packing['speed_ratio']:.2f} times as long, for {packing['flop_ratio']:.2f} times "
              f"the FLOPs: {packing['share']:.1%} (goal {goals['packing']:.0%}).")
    losses = (f"Losses with stored features ({found['stored_dtype']}) are within {found['stored_loss_difference']:.2g} of "
              f"those with computed ones (bound {found['stored_loss_bound']:.2g}).")
    loops = [loop_text(part, found[key] | {"encode": found["encode"]}, {})
             for part, key in (("loader", "loader"), ("end-to-end", "end_to_end"))]
    return "\n\n".join([said, "\n".join(lines), "\n".join(ways), packed, losses, *loops])
