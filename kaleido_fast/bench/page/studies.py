"""Sections of bench.md that need no GPU: machine code, alignments, maskings, memory, what was changed."""

import json
from pathlib import Path
from typing import Any

from kaleido_fast.bench.page.words import MISSING
from kaleido_fast.data.drawn.write import VERSION


def compiled_text(path: Path) -> str:
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


def alignment_text(path: Path) -> str:
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
    if about["drawing"] != VERSION:
        said += (f" These are of drawing {about['drawing']} of the generated catalogue; what `generate` draws today is drawing "
                 f"{VERSION}, other pictures and texts.")
    return f"{said}\n\n" + "\n".join(lines)


def masking_text(path: Path) -> str:
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


def memory_text(path: Path) -> str:
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


def ledger_text(path: Path) -> str:
    """What was changed, with figures before and after."""
    if not path.exists():
        return MISSING
    lines = ["| change | before | after | cause |", "| --- | --- | --- | --- |"]
    lines += [f"| {row['change']} | {row['before']} | {row['after']} | {row['cause']} |"
              for row in json.loads(path.read_text("utf-8"))]
    return "\n".join(lines)
