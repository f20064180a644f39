"""Render bench.md from benchmarks/results/*.json; nothing in it is typed by hand.

    python benchmarks/render.py            write bench.md
    python benchmarks/render.py --check    exit code 1 where bench.md is not what the files say
"""

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "bench.md"
MISSING = "Not measured yet."
WAYS = {"kaleido_fast": "ours", "eager": "reference, eager", "compiled": "reference, compiled", "resizes": "a resize a cell",
        "reference": "reference path", "visualbert": "VisualBERT, eager", "visualbert-compiled": "VisualBERT, compiled"}
H100_TFLOPS = 790  # bf16 matrix products, what the goals are shares of
GPU_GOALS = {"samples_per_s": {"base": 5750, "base_computed": 3000}, "encode_photographs_per_s": 250,
             "times_ours": {"reference": 2.0, "visualbert-compiled": 1.5}, "end_to_end": {"store": 0.97, "photographs": 0.95}}
STEPS = "| shape | batch | tokens | samples/s | goal | packed rows/s | GFLOP a sample | utilisation, of TFLOP/s | GiB |"
DASHES = "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"


def render(results: Path = HERE / "results") -> str:
    """The page."""
    gpu = {path.stem: json.loads(path.read_text()) for path in sorted(results.glob("gpu*.json"))}
    parts = [
        "# Benchmarks",
        "Rendered by `python benchmarks/render.py` from `benchmarks/results/*.json`, which commands in this repository "
        "wrote. What has no file says so.",
        "## Kernels on a GPU", _all(gpu, _kernels),
        "## Kernels, machine code", _compiled(results / "compiled.json"),
        "## Training on a GPU", _all(gpu, _training),
        "## Training on a CPU", _training_cpu(results / "training-cpu.json"),
        "## What was changed for speed", _ledger(results / "ledger.json"),
        "## Alignments against the true parts of a generated catalogue", _alignment(results / "alignment.json"),
        "## Guided against random masking on a real catalogue", _masking(results / "masking.json"),
        "## Memory of training steps against the estimate, on a CPU", _memory(results / "estimate-cpu.json"),
        "## Method",
        "Ways to do the same work are timed in one process, in turn, and the median of the rounds is given; a round is "
        "enough calls to fill 5 ms, timed by CUDA events. `floor` is the bytes that must be read and written at least; a "
        "copy on the device, measured in the same run, is the roof. Tests on the device and compute-sanitizer run first: "
        "where one fails, no figure is printed.",
        "Training steps: a round of each way takes the same optimizer steps' micro-batches, uploaded before. All ways draw the "
        "plan, cut and encode patches or read them from store rows, clip, and step fused AdamW; VisualBERT is Hugging "
        "Face's body under our heads and losses. GFLOP a sample and utilisation: the formula in kaleido_fast/bench/flops.py, "
        "forward and backward, the patch encoder behind the plus; the peak is a matrix product measured in the same run. The "
        "loop: segments of `pretrain`'s loop and of its step on the same batches kept on the device take turns.",
    ]
    return "\n\n".join(parts) + "\n"


def _compiled(path: Path) -> str:
    """What benchmarks/audit_kernels.py read from kernels built without a GPU."""
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if not found.get("kernels"):
        return f"{MISSING} `python -m benchmarks.audit_kernels` builds them; it needs no GPU."
    lines = ["| kernel | sm | registers | spills | shared bytes | loads, bits: number | stores | tensor cores |",
             "| --- | --- | --- | --- | --- | --- | --- | --- |"]
    for row in found["kernels"]:
        loads, stores = (", ".join(f"{bits}: {n}" for bits, n in row[side].items()) for side in ("loads", "stores"))
        lines.append(f"| {row['kernel']} | {row['sm']} | {row['registers']} | {row['spills']} | {row['shared_bytes']} | "
                     f"{loads} | {stores} | {row['tensor_core_instructions']} |")
    said = f"Built ahead of time by Triton {found['versions']['triton']}; an instruction in a loop counts once."
    return f"{said}\n\n" + "\n".join(lines)


def _alignment(path: Path) -> str:
    """What `kaleido-fast align-eval` scored."""
    if not path.exists():
        return f"{MISSING} `kaleido-fast align` and `align-eval` make the figures; they need no GPU."
    found = json.loads(path.read_text(encoding="utf-8"))
    lines = ["| mode | words | aligned | points at the part | random | middle | precision | recall | F1 | random | middle |",
             "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    for mode in ("generated", "forced"):
        for kind, values in {"all": found[mode], **found[mode]["by_kind"]}.items():
            shares = (values[key] for key in ("aligned_share", "pointing_accuracy", "pointing_random", "pointing_centre"))
            pairs = (values[key] for key in ("precision", "recall", "f1", "f1_random", "f1_centre"))
            lines.append(f"| {mode}, {kind} | {values['words']:,} | " + " | ".join(f"{share:.1%}" for share in shares) + " | "
                         + " | ".join(f"{value:.3f}" for value in pairs) + " |")
    about, trained = found["about"], found["about"]["captioner"]
    said = (f"{about['samples']:,} held-out photographs; the captioner saw {trained['samples']:,} samples of "
            f"{about['train_samples']:,} photographs. Pairs of (word, patch) for words of colour, pattern and part; random "
            "patches and those nearest to the middle are as many as were found for each word. A word points at its part where "
            "the patch it looks at most touches it.")
    return f"{said}\n\n" + "\n".join(lines)


def _masking(path: Path) -> str:
    """What `python -m benchmarks.masking_study` measured."""
    if not path.exists():
        return f"{MISSING} `python -m benchmarks.masking_study` compares finished runs; it needs no GPU."
    found = json.loads(path.read_text(encoding="utf-8"))
    about, chance = found["about"], found["about"]["chance"]
    runs = [run for arm in found["runs"].values() for run in arm]
    seen, minutes = ([run[key] for run in runs] for key in ("samples", "minutes"))
    said = (f"Runs that differ in masking alone, {len(about['seeds'])} seeds an arm, each of {min(seen):,} to {max(seen):,} "
            f"samples and {min(minutes):.1f} to {max(minutes):.1f} minutes. Losses and accuracies are on {about['samples']:,} "
            "samples of the test split, for all runs the same batches; the alignment "
            f"('{about['alignment']}') masks {about['guided_share']:.0%} of them otherwise than random masking does. "
            f"Retrieval: {about['queries']:,} queries, 1 in {about['candidates']}; by chance R@1 is {chance['R@1']:.1%} and "
            f"R@10 {chance['R@10']:.1%}. A difference is guided less random, paired by seed, with its standard error; "
            "underpowered: the 95 % interval covers 0.")
    lines = ["| on the test split | random, mean (range) | guided | difference | 95 % interval | |",
             "| --- | --- | --- | --- | --- | --- |"]
    for name, difference in found["difference"].items():
        if not name.startswith("own/"):
            lines.append(_masking_row(name, difference, found["arms"]))
    return f"{said}\n\n" + "\n".join(lines)


def _masking_row(name: str, difference: dict[str, Any], arms: dict[str, Any]) -> str:
    kind, _, measure = name.partition("/")
    form = ".4f" if measure.endswith("_loss") else ".1%"
    title = f"{kind.upper()} {measure}"
    if kind in arms:
        task, _, what = measure.rpartition("_")
        title = f"{task.upper() if len(task) < 5 else task} {what}, {kind} masking"
    sides = (f"{arms[arm][name]['mean']:{form}} ({arms[arm][name]['min']:{form}} to {arms[arm][name]['max']:{form}})"
             for arm in ("random", "guided"))
    error, interval = difference["standard_error"], difference["interval"]
    apart = f"{difference['mean']:+{form}}" + (f" ± {error:{form}}" if interval else "")
    between = f" {interval[0]:+{form}} to {interval[1]:+{form}} " if interval else " "
    return f"| {title} | {' | '.join(sides)} | {apart} |{between}| {difference['verdict']} |"


def _memory(path: Path) -> str:
    """What benchmarks/estimate_memory.py compared."""
    if not path.exists():
        return f"{MISSING} `python benchmarks/estimate_memory.py` measures; it needs no GPU."
    found = json.loads(path.read_text(encoding="utf-8"))
    mib = 1 / 2**20
    lines = ["| config | workers | settings | MiB estimated | MiB measured | difference |",
             "| --- | --- | --- | --- | --- | --- |"]
    for row in found["cases"]:
        lines.append(f"| {row['config']} | {row['workers']} | {', '.join(row['settings']) or 'its own'} | "
                     f"{row['estimated_bytes'] * mib:,.0f} | {row['measured_bytes'] * mib:,.0f} | {row['error']:+.1%} |")
    gaps = ", ".join(f"{row['measured_by_default_bytes'] * mib:,.0f} MiB for {row['config']}" for row in found["cases"]
                     if "measured_by_default_bytes" in row)
    worst = max((row["error"] for row in found["cases"]), key=abs)
    said = ("Peak of a worker's resident memory over what it held before, in four optimizer steps under DeepSpeed on texts of "
            f"full length, beside what `kaleido-fast estimate` computes from shapes: {worst:+.1%} at worst, "
            f"{found['bound']:.0%} is the bound. The same steps run once before, so what libraries keep once is not in it; "
            "every tensor has pages of its own (`MALLOC_MMAP_THRESHOLD_`). With glibc's heap as it is by default, which keeps "
            f"gaps: {gaps}.")
    return f"{said}\n\n" + "\n".join(lines)


def _all(gpu: dict[str, Any], section: Any) -> str:
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


def _kernels(name: str, parts: dict[str, Any]) -> str:
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


def _training(name: str, parts: dict[str, Any]) -> str:
    """Steps of each shape beside their goals, the loader and the loop."""
    steps = {part.removeprefix("step-"): found["result"] for part, found in parts.items()
             if part.startswith("step-") and found.get("ok")}
    if not steps:
        return ""
    if _red(parts):
        return f"{_heading(name, parts)}\n\n{_red(parts)}"
    lines = [STEPS, DASHES]
    for shape, found in steps.items():
        goal = GPU_GOALS["samples_per_s"].get(shape)
        lines.append(_step_row(shape, found, f"{goal * found['peak_tflops'] / H100_TFLOPS:,.0f}" if goal else ""))
    said = [f"The goals are those of an H100 ({H100_TFLOPS} TFLOP/s) times this card's measured matrix peak over its. Medians "
            f"of {_rounds(steps)} rounds.", "",
            "| shape | way | ms a step | times ours | goal |", "| --- | --- | --- | --- | --- |"]
    for shape, found in steps.items():
        for way, row in found["ways"].items():
            goal = GPU_GOALS["times_ours"].get(way) if shape == "base" else None
            said.append(f"| {shape} | {WAYS.get(way, way)} | {row['median_ms']:.1f} | {row['times_ours']:.2f} | {goal or ''} |")
        said += [f"| {shape} | {way} | {MISSING} ({why}) | | |" for way, why in found.get("left_out", {}).items()]
    blocks = [_heading(name, parts), "\n".join(lines), "\n".join(said), _longest(steps["base"]) if "base" in steps else ""]
    blocks += [_loop(part, parts.get(part, {}), GPU_GOALS) for part in ("loader", "end-to-end")]
    return "\n\n".join(block for block in blocks if block)


def _rounds(steps: dict[str, Any]) -> str:
    """How many rounds the shapes were timed by, in words."""
    return " or ".join(str(rounds) for rounds in sorted({found["rounds"] for found in steps.values() if found}))


def _step_row(shape: str, found: dict[str, Any], goal: str) -> str:
    memory, own = found["peak_gib"], found["patch_gflops_a_sample"]
    return (f"| {shape} | {found['micro_batch']} x {found['accumulation']}, {found['precision']} | "
            f"{found['text_tokens']['median']:g} | {found['samples_per_s']:,.1f} | {goal} | {found['tokens_per_s']:,.0f} | "
            f"{found['gflops_a_sample']:.3g}" + (f" + {own:.3g}" if own else "") + f" | {found['utilisation']:.1%}"
            + (f" + {found['patch_utilisation']:.1%}" if own else "") + f" of {found['peak_tflops']:.3g} | "
            + ("" if memory is None else f"{memory:.2f}") + " |")


def _longest(found: dict[str, Any]) -> str:
    lines = ["| longest in a step of base | ms a step | calls |", "| --- | --- | --- |"]
    lines += [f"| `{row['name'][:80].replace('|', ' ')}` | {row['ms_a_step']:.2f} | {row['calls_a_step']:.0f} |"
              for row in found["profile"][:10]]
    return "\n".join(lines) if found["profile"] else ""


def _loop(part: str, found: dict[str, Any], goals: dict[str, Any]) -> str:
    """The loader alone or the loop, from the store and from photographs."""
    if not found.get("ok"):
        return ""
    result = found["result"]
    if "not_measured" in result:
        return f"{part}: {MISSING} {result['not_measured']}."
    if part == "loader":
        lines = ["| loader alone | samples/s | ms a micro-batch |", "| --- | --- | --- |"]
        lines += [f"| {kind} | {row['samples_per_s']:,.0f} | {row['ms_a_batch']:.2f} |"
                  for kind in ("store", "photographs") if (row := result[kind])]
        filled = f"The store is filled at {result['encode']['photographs_per_s']:,.0f} photographs/s (the whole command)"
        goal = f"; goal {goals['encode_photographs_per_s']}." if goals else "."
        return "\n".join(lines) + f"\n\n{filled}{goal}"
    lines = ["| the loop | samples/s | its step alone | share | goal | waits for data | GiB |",
             "| --- | --- | --- | --- | --- | --- | --- |"]
    for kind in ("store", "photographs"):
        row, goal = result[kind], goals.get("end_to_end", {}).get(kind)
        lines.append(f"| {kind} | {row['samples_per_s']:,.1f} | {row['step_samples_per_s']:,.1f} | "
                     f"{row['share_of_step']:.1%} | {f'{goal:.0%}' if goal else ''} | {row['data_wait_share']:.2%} | "
                     f"{row['peak_gib'] or 0:.2f} |")
    return "\n".join(lines)


def _training_cpu(path: Path) -> str:
    """What benchmarks/bench_training.py measured."""
    if not path.exists():
        return f"{MISSING} `python benchmarks/bench_training.py` makes the figures; it needs no GPU."
    found = json.loads(path.read_text(encoding="utf-8"))
    lines = [STEPS, DASHES]
    for shape, row in found["shapes"].items():
        lines.append(_step_row(shape, row, "") if row else f"| {shape} | {MISSING} | | | | | | | |")
    ways = ["| shape | way | ms a step | fastest | slowest | times ours |", "| --- | --- | --- | --- | --- | --- |"]
    for shape, row in found["shapes"].items():
        ways += [f"| {shape} | {WAYS.get(way, way)} | {times['median_ms']:.1f} | {times['min_ms']:.1f} | "
                 f"{times['max_ms']:.1f} | {times['times_ours']:.2f} |" for way, times in (row["ways"] if row else {}).items()]
    demo, packing, goals = found["shapes"]["demo"], found["packing"], found["goals"]
    said = (f"{found['threads']} thread, {_rounds(found['shapes'])} rounds; texts {demo['texts']}, {demo['words']:,} words. "
            f"Goals, at both widths: {goals['speedup_over_reference']:g} times the reference path, not slower than VisualBERT, "
            "eager.")
    packed = (f"At the length of a title ({packing['text_tokens'][0]} to {packing['text_tokens'][1]} tokens) padding to "
              f"{packing['padded_to']} takes {packing['speed_ratio']:.2f} times as long, for {packing['flop_ratio']:.2f} times "
              f"the FLOPs: {packing['share']:.1%} (goal {goals['packing']:.0%}).")
    losses = (f"Losses with stored features ({found['stored_dtype']}) are within {found['stored_loss_difference']:.2g} of "
              f"those with computed ones (bound {found['stored_loss_bound']:.2g}).")
    loops = [_loop(part, {"ok": True, "result": found[key] | {"encode": found["encode"]}}, {})
             for part, key in (("loader", "loader"), ("end-to-end", "end_to_end"))]
    return "\n\n".join([said, "\n".join(lines), "\n".join(ways), packed, losses, *loops])


def _ledger(path: Path) -> str:
    """What was changed, with figures before and after."""
    if not path.exists():
        return MISSING
    lines = ["| change | before | after | cause |", "| --- | --- | --- | --- |"]
    lines += [f"| {row['change']} | {row['before']} | {row['after']} | {row['cause']} |"
              for row in json.loads(path.read_text("utf-8"))]
    return "\n".join(lines)


if __name__ == "__main__":
    page = render()
    if "--check" in sys.argv[1:]:
        sys.exit(0 if PAGE.read_text(encoding="utf-8") == page else "bench.md is not what benchmarks/results say; run "
                 "python benchmarks/render.py")
    PAGE.write_text(page, encoding="utf-8")
