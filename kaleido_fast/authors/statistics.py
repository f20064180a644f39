"""data show: what a folder of shards with stored features holds, in numbers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kaleido_fast.authors.feature_samples import FeatureSamples
from kaleido_fast.data.check.statistics import class_lines, folder_size, histogram, readable_bytes, spread_of
from kaleido_fast.data.shards.manifest import Manifest
from kaleido_fast.data.shards.split import Split

ROWS_AT_ONCE = 4096
LABELS = ("rotation", "permutation", "camouflage", "match")
USES = {
    True: "for pretrain with model.features=stored, see configs/authors.yaml; evaluate and explain need photographs",
    False: "no masks and labels, so not for pretrain; evaluate and explain need photographs",
}


def describe_features(folder: Path, manifest: Manifest, splits: Sequence[Split]) -> str:
    """A text for a person."""
    features, size = manifest.features, folder_size(folder, manifest)
    assert features is not None, "for shards of the authors' files"
    rows = sum(split.num_samples for split in splits)
    block = FeatureSamples(splits[0]).block_bytes
    words = np.concatenate([_columns(split, "num_tokens") for split in splits])
    lines = [f"{folder}: features of the authors' {features.layout} files, no photographs",
             *(f"  {split.name:<11}{split.num_samples:>10,} rows of {split.num_products:,} photographs" for split in splits),
             f"features: F = {features.num_features:,}, {features.rows} rows of {features.dtype} each "
             f"({readable_bytes(block)}), fingerprint {features.fingerprint[:16]}…",
             f"tokens a text: {spread_of(words, ',.0f')}; vocabulary {manifest.vocabulary.size:,} ids"]
    if features.has_plan:
        lines += _plan_lines(splits)
    if features.layout == "category":
        for kind, names, column in (("categories", manifest.categories, "category"),
                                    ("sub-categories", manifest.subcategories, "subcategory")):
            lines += class_lines(kind, names, [np.array(split.products[column]) for split in splits])
    if manifest.skipped_counts:
        lines.append("skipped by prepare: " + ", ".join(f"{n:,} x {reason}" for reason, n in manifest.skipped_counts.items()))
    lines += [f"stored: {readable_bytes(size)}, {readable_bytes(size / rows)} a row", USES[features.has_plan]]
    return "\n".join(lines)


def _columns(split: Split, name: str) -> np.ndarray:
    """A column of all table rows of a split."""
    return np.concatenate([split.rows(samples)[name] for samples in _samples(split)])


def _plan_lines(splits: Sequence[Split]) -> list[str]:
    """Masked words, and how often each label occurs."""
    plans = np.concatenate([stored.plans(samples) for split in splits for stored in [FeatureSamples(split)]
                            for samples in _samples(split)])
    masked = (plans["masked_positions"] >= 0).sum(axis=1)
    return [f"masked words: {spread_of(masked, ',.0f')}",
            *(f"{name}: {histogram(plans[name])}" for name in LABELS)]


def _samples(split: Split) -> list[np.ndarray]:
    return [np.arange(start, min(start + ROWS_AT_ONCE, split.num_samples))
            for start in range(0, split.num_samples, ROWS_AT_ONCE)]
