"""The greatest of some scores, and each product's best photograph."""

import numpy as np

from kaleido_fast.search.exact import ExactScores, greatest


def test_of_equals_the_first_comes_first_and_what_is_out_stays_out() -> None:
    scores = np.array([0.5, 0.75, -np.inf, 0.75, 0.5, 0.5, 0.25] * 10, np.float32)
    order = [place for place in np.argsort(-scores, kind="stable").tolist() if np.isfinite(scores[place])]
    for count in (1, 2, 21, 22, 35, 60, 61, 100):
        assert greatest(scores, count).tolist() == order[:count]
    assert greatest(np.full(3, -np.inf, np.float32), 2).tolist() == greatest(scores[:0], 2).tolist() == []


def test_the_best_of_a_products_photographs_counts() -> None:
    photographs = np.array([[1, 0], [0, 1], [0.5, 0.5], [-1, 0], [0, 0.25]], np.float16)
    scores = ExactScores(photographs, np.zeros((3, 2), np.float16), np.array([0, 1, 3]))
    assert scores.photographs(np.array([0, 1], np.float32)).tolist() == [0, 1, 0.25]
    assert scores.photographs(np.array([1, 0], np.float32)).tolist() == [1, 0.5, 0]
