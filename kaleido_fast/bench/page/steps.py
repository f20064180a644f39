"""Rows of bench.md about training, on a CPU and on a GPU: steps, the loader, the loop."""

from typing import Any

STEPS = "| shape | batch | tokens | samples/s | goal | packed rows/s | GFLOP a sample | utilisation, of TFLOP/s | GiB |"
DASHES = "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"


def step_row(shape: str, found: dict[str, Any], goal: str) -> str:
    memory, own = found["peak_gib"], found["patch_gflops_a_sample"]
    return (f"| {shape} | {found['micro_batch']} x {found['accumulation']}, {found['precision']} | "
            f"{found['text_tokens']['median']:g} | {found['samples_per_s']:,.1f} | {goal} | {found['tokens_per_s']:,.0f} | "
            f"{found['gflops_a_sample']:.3g}" + (f" + {own:.3g}" if own else "") + f" | {found['utilisation']:.1%}"
            + (f" + {found['patch_utilisation']:.1%}" if own else "") + f" of {found['peak_tflops']:.3g} | "
            + ("" if memory is None else f"{memory:.2f}") + " |")


def rounds_text(steps: dict[str, Any]) -> str:
    """How many rounds the shapes were timed by, in words."""
    return " or ".join(str(rounds) for rounds in sorted({found["rounds"] for found in steps.values() if found}))


def _first_epoch(loader: dict[str, Any]) -> str:
    """Of a store alone, whose blocks are compared with their CRC32s then."""
    rate = loader.get("first_epoch_samples_per_s")
    return f"{rate:,.0f}" if rate else ""


def loop_text(part: str, result: dict[str, Any], goals: dict[str, Any]) -> str:
    """The loader alone or the loop, from the store and from photographs; empty where it was not measured."""
    if part == "loader" and "store" in result:
        lines = ["| loader alone | samples/s | ms a micro-batch | samples/s in the first epoch |", "| --- | --- | --- | --- |"]
        lines += [f"| {kind} | {row['samples_per_s']:,.0f} | {row['ms_a_batch']:.2f} | {_first_epoch(row)} |"
                  for kind in ("store", "photographs") if (row := result[kind])]
        filled = f"The store is filled at {result['encode']['photographs_per_s']:,.0f} photographs/s (the whole command)"
        goal = f"; goal {goals['encode_photographs_per_s']}." if goals else "."
        return "\n".join(lines) + f"\n\n{filled}{goal}"
    sources = {"drawn store": result} if part == "loop" else {kind: result.get(kind, {}) for kind in ("store", "photographs")}
    lines = ["| the loop | samples/s | its step alone | share | goal | waits for data | GiB |",
             "| --- | --- | --- | --- | --- | --- | --- |"]
    for kind, row in sources.items():
        if "step_samples_per_s" in row:
            goal = goals.get("end_to_end", {}).get(kind.removeprefix("drawn "))
            lines.append(f"| {kind} | {row['samples_per_s']:,.1f} | {row['step_samples_per_s']:,.1f} | "
                         f"{row['share_of_step']:.1%} | {f'{goal:.0%}' if goal else ''} | {row['data_wait_share']:.2%} | "
                         f"{row['peak_gib'] or 0:.2f} |")
    waits = [f"{sum(row['waits'].values())} in {row['steps']} steps of the loop from the {kind}"
             + "".join(f", {count} in {file}" for file, count in row["waits"].items())
             for kind, row in sources.items() if goals and "waits" in row]
    if len(lines) == 2:
        return ""
    return "\n".join(lines) + (f"\n\nWaits for all work of the GPU: {'; '.join(waits)}." if waits else "")
