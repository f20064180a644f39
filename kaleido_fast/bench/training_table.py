"""The figures of `kaleido-fast bench step|loader|end-to-end` in words and as a table."""

from typing import Any

from kaleido_fast.bench.training_ways import OURS


def steps_text(figures: dict[str, Any]) -> str:
    """Of `bench_steps`."""
    lines = [
        f"{figures['micro_batch']} samples x {figures['accumulation']} a step, {figures['precision']}, {figures['attention']}, "
        f"texts {figures['texts']}",
        f"{figures['samples_per_s']:,.1f} samples/s, {figures['tokens_per_s']:,.0f} tokens/s (packed rows)",
        f"{figures['gflops_a_sample']:.3g} GFLOP a sample: {figures['utilisation']:.1%} of {figures['peak_tflops']:.4g} TFLOP/s"
        + (f"; patch encoder {figures['patch_gflops_a_sample']:.3g}: {figures['patch_utilisation']:.1%}"
           if figures["patch_gflops_a_sample"] else ""),
        f"peak memory {memory_text(figures['peak_gib'])}",
        *([f"contrast (itc): {figures['times_without_itc']:.2f} times the step without it"]
          if "times_without_itc" in figures else []), "",
        "| way | ms a step | fastest | slowest | times ours |", "| --- | --- | --- | --- | --- |",
    ]
    lines += [f"| {'ours' if way == OURS else way} | {row['median_ms']:.1f} | {row['min_ms']:.1f} | {row['max_ms']:.1f} | "
              f"{row['times_ours']:.2f} |" for way, row in figures["ways"].items()]
    return "\n".join(lines)


def loader_text(figures: dict[str, Any]) -> str:
    """Of `bench_loader`."""
    first = figures["first_epoch_samples_per_s"]
    return (f"loader alone, from {figures['source']}: {figures['samples_per_s']:,.1f} samples/s"
            f"{'' if first is None else f' ({first:,.1f} in the first epoch)'}, "
            f"{figures['ms_a_batch']:.2f} ms a micro-batch, {figures['holes']} of {figures['samples']} samples unreadable")


def end_to_end_text(figures: dict[str, Any]) -> str:
    """Of `bench_end_to_end`."""
    return (f"the loop, from {figures['source']}: {figures['samples_per_s']:,.1f} samples/s, "
            f"{figures['share_of_step']:.1%} of the {figures['step_samples_per_s']:,.1f} of its step on the same batches; "
            f"waits for data {figures['data_wait_share']:.2%} of the time; peak memory {memory_text(figures['peak_gib'])}")


def memory_text(gib: float | None) -> str:
    """In GiB."""
    return "unknown" if gib is None else f"{gib:.2f} GiB"
