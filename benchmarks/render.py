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
WAYS = {"kaleido_fast": "ours", "eager": "reference, eager", "compiled": "reference, compiled", "resizes": "a resize a cell"}


def render(results: Path = HERE / "results") -> str:
    """The page."""
    gpu = {path.stem: json.loads(path.read_text()) for path in sorted(results.glob("gpu*.json"))}
    parts = [
        "# Benchmarks",
        "Rendered by `python benchmarks/render.py` from `benchmarks/results/*.json`, which commands in this repository "
        "wrote. What has no file says so.",
        "## Kernels on a GPU", _all(gpu, _kernels),
        "## Kernels, machine code", _compiled(results / "compiled.json"),
        "## Steps of training at the base shape on a GPU", _all(gpu, _training),
        "## Alignments against the true parts of a generated catalogue", _alignment(results / "alignment.json"),
        "## Guided against random masking on a real catalogue", _masking(results / "masking.json"),
        "## Method",
        "Ways to do the same work are timed in one process, in turn, and the median of 15 rounds is given; a round is "
        "enough calls to fill 5 ms, timed by CUDA events. `floor` is the bytes that must be read and written at least; a "
        "copy on the device, measured in the same run, is the roof. Tests on the device and compute-sanitizer run first: "
        "where one fails, no figure is printed.",
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
    said = (f"{about['samples']:,} held-out photographs; the captioner saw {trained['samples']:,} samples of {about['train_samples']:,} "
            "photographs. Pairs of (word, patch) for words of colour, pattern and part; random patches and those nearest to the "
            "middle are as many as were found for each word. A word points at its part where the patch it looks at most touches it.")
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
            f"('{about['alignment']}') masks {about['guided_share']:.0%} of them otherwise than random masking does. Retrieval: "
            f"{about['queries']:,} queries, 1 in {about['candidates']}; by chance R@1 is {chance['R@1']:.1%} and R@10 "
            f"{chance['R@10']:.1%}. A difference is guided less random, paired by seed, with its standard error; underpowered: "
            "the 95 % interval covers 0.")
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
    return f"{_heading(name, parts)}\n\n{table}\n\nA copy: {found['copy_gbps']:,.0f} GB/s, read and written."


def _training(name: str, parts: dict[str, Any]) -> str:
    if not parts.get("training", {}).get("ok"):
        return ""
    if _red(parts):
        return f"{_heading(name, parts)}\n\n{_red(parts)}"
    found = parts["training"]["result"]
    lines = [f"{found['samples']} samples a step, {found['packed_rows']:,} packed rows, {found['parameters'] / 1e6:.0f} M "
             f"parameters: {found['median_ms']:.1f} ms ({found['min_ms']:.1f} to {found['max_ms']:.1f}), "
             f"{found['samples_per_s']:,.0f} samples/s, {found['tokens_per_s']:,.0f} rows/s, {found['peak_gib']:.1f} GiB.",
             "", "| longest | ms a step | calls |", "| --- | --- | --- |"]
    lines += [f"| `{row['name'][:80].replace('|', ' ')}` | {row['ms_a_step']:.2f} | {row['calls_a_step']:.0f} |"
              for row in found["profile"][:10]]
    return f"{_heading(name, parts)}\n\n" + "\n".join(lines)

if __name__ == "__main__":
    page = render()
    if "--check" in sys.argv[1:]:
        sys.exit(0 if PAGE.read_text(encoding="utf-8") == page else "bench.md is not what benchmarks/results say; run "
                 "python benchmarks/render.py")
    PAGE.write_text(page, encoding="utf-8")
