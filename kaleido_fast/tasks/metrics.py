"""Measures of the downstream tasks (SPEC 9): recall at k, accuracy, macro-F1. Fractions in 0..1."""

import numpy as np


def own_ranks(scores: np.ndarray, present: np.ndarray | None = None) -> np.ndarray:
    """Rank of the right candidate, which stands in column 0; ties count against us.

    Args:
        scores: (Q, C) float; a score that is not a number counts as a tie with every other.
        present: (Q, C) bool; False where a query has fewer candidates. All are present without it.
    Returns:
        (Q,) int64: 1 + the number of other candidates that do not score strictly lower.
    """
    ahead = ~(scores[:, 1:] < scores[:, :1])
    if present is not None:
        ahead &= present[:, 1:]
    return 1 + ahead.sum(axis=1)


def recall_at(ranks: np.ndarray, k: int) -> float:
    """Share of queries whose right candidate is among the best k; `ranks` (Q,) from 1."""
    return float((ranks <= k).mean())


def mean_reciprocal_rank(ranks: np.ndarray) -> float:
    """MRR of the right candidates' `ranks` (Q,) from 1."""
    return float((1 / ranks).mean())


def accuracy(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Share of right predictions; both (N,) int."""
    return float((predicted == labels).mean())


def macro_f1(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Mean F1 over the classes that occur among `labels`; both (N,) int."""
    scores, support = _f1_scores(predicted, labels, int(max(predicted.max(), labels.max())) + 1)
    return float(scores[support > 0].mean())


def macro_f1_all(predicted: np.ndarray, labels: np.ndarray, num_classes: int) -> float:
    """Mean F1 over all `num_classes` labels; a class that neither occurs nor is predicted counts 0."""
    return float(_f1_scores(predicted, labels, num_classes)[0].mean())


def _f1_scores(predicted: np.ndarray, labels: np.ndarray, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """F1 = 2 hits / (predictions + occurrences) of each class, and its occurrences; both (num_classes,)."""
    hits = np.bincount(labels[predicted == labels], minlength=num_classes)
    support = np.bincount(labels, minlength=num_classes)
    total = support + np.bincount(predicted, minlength=num_classes)
    return 2 * hits / np.maximum(total, 1), support
