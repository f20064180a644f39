"""The first candidates of every query by cosine, among all products of a split; memory for a block of queries at a time."""

from typing import NamedTuple

import numpy as np

SCORES_AT_ONCE = 4_194_304  # cosines of a block of queries: 32 MiB in float64


class First(NamedTuple):
    """One direction's queries, ranked by cosine."""

    ranks: np.ndarray  # (Q,) int64 rank of the right candidate, from 1; ties count against it
    others: np.ndarray  # (Q, k) int64 the other products among the first k + 1; -1 fills up


def first_by_cosine(queries: np.ndarray, left: np.ndarray, right: np.ndarray, text: np.ndarray, first: int) -> First:
    """Rank all products for each query and name those that stand among the first.

    Candidates with the query's text are left out. Sums are float64's, rounded to fp32, so that equal embeddings tie wherever
    they stand. Among equal cosines the right candidate stands last, of the others the lower number first.

    Args:
        queries: (Q,) int64 products.
        left: (Q, E) embeddings of the queries.
        right: (n, E) embeddings of all products' other side.
        text: (n,) int64, equal where two products have one text.
        first: how many are ranked again; a query whose right candidate is not among them has no others, as ranking them again
            cannot change its rank.
    """
    ranks = np.empty(len(queries), np.int64)
    others = np.full((len(queries), max(min(first, len(text)) - 1, 0)), -1, np.int64)
    columns = right.astype(np.float64).T
    for start in range(0, len(queries), size := max(1, SCORES_AT_ONCE // len(text))):
        part = slice(start, start + size)
        scores = (left[part].astype(np.float64) @ columns).astype(np.float32)
        right_ones = scores[np.arange(len(scores)), queries[part]]
        left_out = text[None] == text[queries[part], None]
        ranks[part] = 1 + (~(scores < right_ones[:, None]) & ~left_out).sum(axis=1)
        for row in np.flatnonzero(ranks[part] <= first):
            best = _best(np.where(left_out[row], -np.inf, scores[row]), min(others.shape[1], int((~left_out[row]).sum())))
            others[start + row, : len(best)] = best
    return First(ranks, others)


def _best(scores: np.ndarray, count: int) -> np.ndarray:
    """Places of the greatest `count` of `scores` (n,), best first; of equal ones the lower place."""
    if not count:
        return np.empty(0, np.int64)
    least = np.partition(scores, len(scores) - count)[len(scores) - count]
    places = np.flatnonzero(scores >= least)
    return places[np.argsort(-scores[places], kind="stable")][:count]
