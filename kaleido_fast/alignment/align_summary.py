"""What alignments came to: shares and counts, summed over shards, a few examples; how fast it was, how much memory it took."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from kaleido_fast.alignment.aligner import SampleAlignment, WordPatches
from kaleido_fast.kernels.geometry import GRIDS, level_offsets
from kaleido_fast.process_memory import peak_resident_bytes
from kaleido_fast.training.workers.group import Workers

EXAMPLES, MOST_WORDS = 2, 40  # kept a shard
NEARLY_NOTHING = 1e-3  # share of the tokens: with fewer aligned, masking by alignments is random masking
COUNTED = ("samples", "unreadable", "aligned_samples", "tokens", "aligned_tokens", "pairs", "too_wide_words")


class Tally:
    """Counts of one shard's samples."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys(COUNTED, 0)
        self._words: Counter[str] = Counter()
        self._examples: list[dict[str, Any]] = []

    def add(self, alignment: SampleAlignment, masks: np.ndarray, num_tokens: int, record: dict[str, Any]) -> None:
        """Take one sample: `masks` (W,) of its tokens, `record` its id and text."""
        aligned = masks != 0
        self._counts["samples"] += 1
        self._counts["aligned_samples"] += bool(aligned.any())
        self._counts["tokens"] += int(num_tokens)
        self._counts["aligned_tokens"] += int(aligned.sum())
        self._counts["pairs"] += int(np.bitwise_count(masks.view(np.uint64)).sum())
        self._counts["too_wide_words"] += sum(entry.too_wide for entry in alignment.words)
        self._words.update(entry.word.text for entry in alignment.words if entry.mask)
        if len(self._examples) < EXAMPLES and aligned.any():
            self._examples.append({
                "id": record.get("id", ""), "photo": record.get("photo", 0), "text": record.get("text", ""),
                "caption": alignment.caption, "aligned": [_describe(entry) for entry in alignment.words if entry.mask],
            })

    def miss(self) -> None:
        """A sample that cannot be read: it has no alignments."""
        self._counts["unreadable"] += 1

    @property
    def wants_example(self) -> bool:
        return len(self._examples) < EXAMPLES

    def counts(self) -> dict[str, Any]:
        """Plain values."""
        return self._counts | {"words": dict(self._words.most_common(MOST_WORDS)), "examples": self._examples}


def summarise(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """One summary of all shards' counts."""
    sums: Counter[str] = Counter()
    words: Counter[str] = Counter()
    examples: list[dict[str, Any]] = []
    for part in parts:
        sums.update({key: value for key, value in part.items() if isinstance(value, int)})
        words.update(part["words"])
        examples += part["examples"]
    return {
        **{key: sums[key] for key in COUNTED}, "aligned_token_share": sums["aligned_tokens"] / max(sums["tokens"], 1),
        "aligned_sample_share": sums["aligned_samples"] / max(sums["samples"], 1),
        "patches_per_aligned_token": sums["pairs"] / max(sums["aligned_tokens"], 1),
        "most_aligned_words": dict(words.most_common(MOST_WORDS)), "examples": examples,
    }


def describe_alignment(summary: dict[str, Any]) -> str:
    """Some lines for a person."""
    words = ", ".join(f"{word} {count:,}" for word, count in list(summary["most_aligned_words"].items())[:12]) or "none"
    lines = [
        f"{summary['samples']:,} samples, {summary['aligned_sample_share']:.1%} of them with alignments; "
        f"{summary['aligned_token_share']:.1%} of the tokens aligned, with {summary['patches_per_aligned_token']:.1f} patches "
        "each",
        f"most aligned words: {words}",
    ]
    if summary["too_wide_words"]:
        lines.append(f"{summary['too_wide_words']:,} words looked at too much of the square (align.most_covered) and have none")
    if summary["unreadable"]:
        lines.append(f"{summary['unreadable']:,} samples could not be read and have none")
    for example in summary["examples"][:3]:
        pairs = "; ".join(f"{entry['word']}: {entry['patches']}" for entry in example["aligned"])
        caption = f" | caption: {example['caption']}" if example["caption"] else ""
        lines.append(f"{example['id']}: {example['text']}{caption} | {pairs}")
    return "\n".join(lines)


def warning(summary: dict[str, Any], mode: str) -> str:
    """What is wrong with alignments of nearly nothing, and what to do; empty where there is nothing to warn of."""
    if summary["aligned_token_share"] >= NEARLY_NOTHING:
        return ""
    advice = ["train the captioner longer (align.steps or align.minutes, another run.out)"]
    if mode == "generated":
        advice.append("set align.mode=forced, which aligns the words of the text itself")
    if summary["too_wide_words"] > summary["aligned_tokens"]:
        advice.append("raise align.most_covered or align.region_share")
    return (f"warning: {summary['aligned_tokens']:,} of {summary['tokens']:,} tokens aligned "
            f"({summary['aligned_token_share']:.2%}): masking by these alignments is random masking; {'; or '.join(advice)}")


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
        recorded = json.loads(summary.read_text(encoding="utf-8"))
        return recorded["speed"]["generation"] if recorded["recipe"] == recipe else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def describe_speed(speed: dict[str, Any]) -> str:
    """One line; what is not known is left out."""
    parts = []
    if speed["training_samples_per_s"]:
        parts.append(f"the captioner was trained on {speed['training_samples_per_s']:,.0f} samples/s")
    if speed["generation"]:
        generation = speed["generation"]
        parts.append(f"{generation['samples']:,} samples aligned in {generation['seconds']:,.0f} s, "
                     f"{generation['samples_per_s']:,.0f} samples/s, {generation['products_per_s']:,.0f} products/s")
    parts.append(f"at most {speed['peak_memory_mib']:,.0f} MiB in one of {speed['workers']} processes")
    return "; ".join(parts)


def _describe(entry: WordPatches) -> dict[str, str]:
    """A word and its patches by level: "5: 7 12" are slots 7 and 12 of level 5."""
    parts = []
    for grid, offset in zip(GRIDS, level_offsets(GRIDS), strict=True):
        slots = [str(slot) for slot in range(grid * grid) if entry.mask >> (offset + slot) & 1]
        if slots:
            parts.append(f"{grid}x{grid} {' '.join(slots)}")
    return {"word": entry.word.text, "patches": ", ".join(parts)}
