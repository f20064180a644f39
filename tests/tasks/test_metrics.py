"""Metrics against hand-worked cases and a brute force."""

import numpy as np
import pytest

from kaleido_fast.tasks.metrics import accuracy, macro_f1, macro_f1_all, own_ranks, recall_at


def test_ranks_by_hand() -> None:
    scores = np.array([[3.0, 1.0, 2.0], [1.0, 3.0, 2.0], [2.0, 2.0, 1.0]])
    assert own_ranks(scores).tolist() == [1, 3, 2]  # a tie counts against us


def test_ranks_leave_out_absent_candidates() -> None:
    scores = np.array([[1.0, 3.0, 2.0]])
    assert own_ranks(scores, np.array([[True, False, True]])).tolist() == [2]


def test_nan_scores_never_help() -> None:
    assert own_ranks(np.array([[np.nan, 1.0, 0.0], [1.0, np.nan, 0.0]])).tolist() == [3, 2]


def test_constant_scores_recall_nothing() -> None:
    ranks = own_ranks(np.zeros((5, 101)))
    assert recall_at(ranks, 100) == 0.0
    assert recall_at(ranks, 101) == 1.0


def test_recall_equals_brute_force() -> None:
    random = np.random.default_rng(3)
    scores = random.integers(0, 30, (200, 101)).astype(float)
    ranks = [1 + sum(1 for other in row[1:] if other >= row[0]) for row in scores]
    assert own_ranks(scores).tolist() == ranks
    for k in (1, 5, 10, 100):
        assert recall_at(own_ranks(scores), k) == pytest.approx(sum(rank <= k for rank in ranks) / 200)


def test_accuracy_and_f1_by_hand() -> None:
    labels, predicted = np.array([0, 0, 0, 1, 1, 3]), np.array([0, 0, 1, 1, 2, 3])
    assert accuracy(predicted, labels) == pytest.approx(4 / 6)
    f1 = [2 * 2 / (2 + 3), 2 * 1 / (2 + 2), 1.0]  # classes 0, 1, 3; 2 is predicted and never occurs
    assert macro_f1(predicted, labels) == pytest.approx(sum(f1) / 3)
    assert macro_f1_all(predicted, labels, 5) == pytest.approx(sum(f1) / 5)


def test_f1_equals_brute_force() -> None:
    random = np.random.default_rng(4)
    labels, predicted = random.integers(0, 9, 300), random.integers(0, 12, 300)
    scores = []
    for c in range(9):
        hit = ((labels == c) & (predicted == c)).sum()
        precision, recall = hit / max((predicted == c).sum(), 1), hit / (labels == c).sum()
        scores.append(2 * precision * recall / (precision + recall) if hit else 0.0)
    assert macro_f1(predicted, labels) == pytest.approx(np.mean(scores))
