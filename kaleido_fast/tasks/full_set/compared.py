"""Which photographs are compared with which texts by matching, each pair once for both directions, in blocks.

Photographs and texts go by their product's number. A pair (i, j) may count for the photograph i as a query (ITR), for the text
j as a query (TIR), or for both. The pairs of queries with themselves are not among them.
"""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np

PAIRS_AT_ONCE = 65_536  # of a block, whatever the split


class Block(NamedTuple):
    """Some pairs in order of their photographs, so that few photographs are in a batch."""

    photographs: np.ndarray  # (m,) int64 products
    texts: np.ndarray  # (m,) int64 products
    for_photograph: np.ndarray  # (m,) bool: the text is a candidate of the photograph
    for_text: np.ndarray  # (m,) bool: the photograph is a candidate of the text


class Compared(Protocol):
    """Pairs that are compared."""

    def __len__(self) -> int:
        """How many."""

    def blocks(self) -> Iterator[Block]:
        """All of them, block by block."""


class FirstPairs:
    """Each query with the first of its candidates.

    Args:
        queries: (Q,) int64 products.
        texts, photographs: (Q, k) int64 the candidates of the queries' photographs and of their texts; -1 fills up.
        count: products of the split.
    """

    def __init__(self, queries: np.ndarray, texts: np.ndarray, photographs: np.ndarray, count: int) -> None:
        self._count = count
        of_photographs, of_texts = texts >= 0, photographs >= 0
        query = np.broadcast_to(queries[:, None], texts.shape)
        self._itr = np.sort(query[of_photographs] * count + texts[of_photographs])
        self._tir = np.sort(photographs[of_texts] * count + query[of_texts])
        self._pairs = np.union1d(self._itr, self._tir)

    def __len__(self) -> int:
        return len(self._pairs)

    def blocks(self) -> Iterator[Block]:
        for start in range(0, len(self._pairs), PAIRS_AT_ONCE):
            pairs = self._pairs[start : start + PAIRS_AT_ONCE]
            yield Block(*np.divmod(pairs, self._count), _among(pairs, self._itr), _among(pairs, self._tir))


class AllPairs:
    """Each query with every product, but those of its text.

    Args:
        queries: (Q,) int64 products, ascending.
        text: (n,) int64, equal where two products have one text.
    """

    def __init__(self, queries: np.ndarray, text: np.ndarray) -> None:
        self._text, self._is_query = text, np.zeros(len(text), bool)
        self._is_query[queries] = True
        _, number, sharers = np.unique(text, return_inverse=True, return_counts=True)
        query_sharers = np.bincount(number.reshape(-1), self._is_query, len(sharers)).astype(np.int64)
        count, num_queries = len(text), len(queries)
        both_left_out = int((sharers * query_sharers + query_sharers * (sharers - query_sharers)).sum())
        self._num_pairs = num_queries * (2 * count - num_queries) - both_left_out

    def __len__(self) -> int:
        return self._num_pairs

    def blocks(self) -> Iterator[Block]:
        """A few photographs at a time with all texts that they are compared with."""
        count = len(self._text)
        for start in range(0, count, size := max(1, PAIRS_AT_ONCE // count)):
            rows = np.arange(start, min(start + size, count))
            wanted = self._is_query[rows, None] | self._is_query[None]
            wanted &= self._text[rows, None] != self._text[None]
            row, texts = np.nonzero(wanted)
            photographs = rows[row]
            yield Block(photographs, texts, self._is_query[photographs], self._is_query[texts])


def _among(pairs: np.ndarray, of_ascending: np.ndarray) -> np.ndarray:
    """(m,) bool: which `pairs` (m,) are in `of_ascending`."""
    if not len(of_ascending):
        return np.zeros(len(pairs), bool)
    places = np.minimum(np.searchsorted(of_ascending, pairs), len(of_ascending) - 1)
    return of_ascending[places] == pairs
