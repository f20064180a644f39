"""The figures of `kaleido-fast bench step|loader|end-to-end` in words and as a table."""

from typing import Any

from kaleido_fast.bench.ways import OURS


def steps_text(found: dict[str, Any]) -> str:
    """Of `bench_steps`."""
    lines = [
        f"{found['micro_batch']} samples x {found['accumulation']} a step, {found['precision']}, {found['attention']}, "
        f"texts {found['texts']}",
        f"{found['samples_per_s']:,.1f} samples/s, {found['tokens_per_s']:,.0f} tokens/s (packed rows)",
        f"{found['gflops_a_sample']:.3g} GFLOP a sample: {found['utilisation']:.1%} of {found['peak_tflops']:.4g} TFLOP/s"
        + (f"; patch encoder {found['patch_gflops_a_sample']:.3g}: {found['patch_utilisation']:.1%}"
           if found["patch_gflops_a_sample"] else ""),
        f"peak memory {memory_text(found['peak_gib'])}", "",
        "| way | ms a step | fastest | slowest | times ours |", "| --- | --- | --- | --- | --- |",
    ]
    lines += [f"| {'ours' if way == OURS else way} | {row['median_ms']:.1f} | {row['min_ms']:.1f} | {row['max_ms']:.1f} | "
              f"{row['times_ours']:.2f} |" for way, row in found["ways"].items()]
    return "\n".join(lines)


def loader_text(found: dict[str, Any]) -> str:
    """Of `bench_loader`."""
    return (f"loader alone, from {found['source']}: {found['samples_per_s']:,.1f} samples/s, {found['ms_a_batch']:.2f} ms a "
            f"micro-batch, {found['holes']} of {found['samples']} samples unreadable")


def end_to_end_text(found: dict[str, Any]) -> str:
    """Of `bench_end_to_end`."""
    return (f"the loop, from {found['source']}: {found['samples_per_s']:,.1f} samples/s, {found['share_of_step']:.1%} of the "
            f"{found['step_samples_per_s']:,.1f} of its step on the same batches; waits for data "
            f"{found['data_wait_share']:.2%} of the time; peak memory {memory_text(found['peak_gib'])}")


def memory_text(gib: float | None) -> str:
    """In GiB."""
    return "unknown" if gib is None else f"{gib:.2f} GiB"
