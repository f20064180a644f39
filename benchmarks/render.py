"""Renders bench.md from benchmarks/results/*.json; what no file has says so.

    python -m benchmarks.render
"""

import json
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "bench.md"
MISSING = "Not measured yet."
Row = dict[str, object]


def render(results: Path = RESULTS) -> str:
    """The page."""
    session, compiled = _read(results / "gpu_session.json"), _read(results / "compiled.json")
    sections = (
        "# Benchmarks\n\nRendered by `python -m benchmarks.render` from `benchmarks/results/*.json`, never typed.",
        "## Kernels on a GPU\n\n" + _kernels(session),
        "## Kernels, machine code\n\n" + _compiled(compiled),
        "## Training step on a GPU\n\n" + _training(session),
        "## Environment\n\n" + _environment(session),
    )
    return "\n\n".join(sections) + "\n"


def _kernels(session: Row) -> str:
    cases = {name: row for name, row in session.get("kernels", {}).items() if name != "error"}
    if not cases:
        return f"{MISSING} `kaleido-fast bench kernels` on a GPU machine measures them."
    return "\n".join(["Medians in ms; share: of a device-to-device copy's bandwidth in the same run; a red row differs"
                      " from its reference.\n", *_table(_KERNEL_HEAD, [_kernel_row(n, r) for n, r in cases.items()])])


_KERNEL_HEAD = ("case", "kernel", "reference", "compiled", "other baselines", "GB/s", "share", "x compiled", "goal met")


def _kernel_row(name: str, row: Row) -> tuple[str, ...]:
    if "error" in row:
        return (name, f"**{row['error'].splitlines()[0]}**", *[""] * 7)
    ms = dict(row["ms"])
    main = [f"{ms.pop(run):.3f}" for run in ("kernel", "reference", "compiled")]
    ms.pop("copy")
    others = ", ".join(f"{run} {value:.3f}" for run, value in ms.items())
    met = "-"
    if row["goal"]:
        share, times = row["goal"]
        met = "yes" if row["copy_share"] >= share and row["times_compiled"] >= times else "no"
    return (row["case"], *main, others, f"{row['gbps']:.0f}", f"{row['copy_share']:.0%}", f"{row['times_compiled']:.2f}",
            met)


def _compiled(compiled: Row) -> str:
    if not compiled.get("kernels"):
        return f"{MISSING} `python -m benchmarks.audit_kernels` builds them; it needs no GPU."
    head = ("kernel", "sm", "registers", "spills", "shared bytes", "loads by bits", "stores by bits", "tensor cores")
    rows = [
        (row["kernel"], str(row["sm"]), str(row["registers"]), str(row["spills"]), str(row["shared_bytes"]),
         _widths(row["loads"]), _widths(row["stores"]), str(row["tensor_core_instructions"]))
        for row in compiled["kernels"]
    ]
    said = f"Built ahead of time by Triton {compiled['versions']['triton']}, no GPU; instructions in a loop count once.\n"
    return "\n".join([said, *_table(head, rows)])


def _widths(counts: dict[str, int]) -> str:
    return ", ".join(f"{bits}: {count}" for bits, count in counts.items())


def _training(session: Row) -> str:
    step = session.get("training", {})
    if not step.get("step_ms"):
        return MISSING
    ms = sorted(step["step_ms"])
    return (f"Base size, {step['shape']['samples']} samples a step, synthetic batches: median {ms[len(ms) // 2]:.1f} ms,"
            f" {step['samples_per_s']:.0f} samples/s, peak {step['peak_mib'] / 1024:.1f} GiB.")


def _environment(session: Row) -> str:
    found = session.get("environment", {})
    return "\n".join(f"- {key}: {value}" for key, value in found.items()) or MISSING


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows)]


def _read(path: Path) -> Row:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
    print(PAGE.name)
