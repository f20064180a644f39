"""How fast an `align` was and how much memory it took, for its summary."""

import json
from pathlib import Path
from typing import Any

from kaleido_fast.process_memory import peak_resident_bytes
from kaleido_fast.training.workers.group import Workers


def most_memory_mib(workers: Workers) -> float:
    """Resident at the most, of the worker that has held the most; all workers call it."""
    return max(workers.from_all(peak_resident_bytes())) / 2**20


def generation_speed(samples: int, seconds: float, products_a_sample: float) -> dict[str, float]:
    """Of the samples that were aligned this time, over all workers."""
    rate = samples / seconds
    return {"samples": samples, "seconds": seconds, "samples_per_s": rate, "products_per_s": rate * products_a_sample}


def earlier_generation(summary: Path, recipe: dict[str, Any]) -> dict[str, float] | None:
    """How fast the alignments of this recipe were made, from the summary that an earlier run left; None where it left none."""
    try:
        found = json.loads(summary.read_text(encoding="utf-8"))
        return found["speed"]["generation"] if found["recipe"] == recipe else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def describe_speed(speed: dict[str, Any]) -> str:
    """One line; what is not known is left out."""
    parts = []
    if speed["training_samples_per_s"]:
        parts.append(f"the captioner was trained on {speed['training_samples_per_s']:,.0f} samples/s")
    if speed["generation"]:
        found = speed["generation"]
        parts.append(f"{found['samples']:,} samples aligned in {found['seconds']:,.0f} s, "
                     f"{found['samples_per_s']:,.0f} samples/s, {found['products_per_s']:,.0f} products/s")
    parts.append(f"at most {speed['peak_memory_mib']:,.0f} MiB in one of {speed['workers']} processes")
    return "; ".join(parts)
