"""Exact search: one product of a matrix and a vector, the best of each product, the greatest k.

The matrix is fp32 in memory, as large as 4 P E bytes; a query reads it once.
"""

import numpy as np
import torch


class ExactScores:
    """Cosines of a query with everything in an index.

    Args:
        photographs: (P, E) fp16 of length 1.
        texts: (n, E) fp16 of length 1, zeros where there is none.
        first_photograph: (n,) int64, ascending from 0: each product has at least one.
    """

    def __init__(self, photographs: np.ndarray, texts: np.ndarray, first_photograph: np.ndarray) -> None:
        self._photographs, self._texts = _in_memory(photographs), _in_memory(texts)
        self._first, self._one_each = first_photograph, len(photographs) == len(first_photograph)

    def photographs(self, query: np.ndarray) -> np.ndarray:
        """(n,) fp32: each product's best photograph's cosine with `query` (E,) fp32."""
        cosines = self.all_photographs(query)
        return cosines if self._one_each else np.maximum.reduceat(cosines, self._first)

    def all_photographs(self, query: np.ndarray) -> np.ndarray:
        """(P,) fp32."""
        return torch.mv(self._photographs, torch.from_numpy(query)).numpy()

    def texts(self, query: np.ndarray) -> np.ndarray:
        """(n,) fp32; 0 where a product has no text."""
        return torch.mv(self._texts, torch.from_numpy(query)).numpy()


def greatest(scores: np.ndarray, count: int) -> np.ndarray:
    """Places (m,) of the greatest of `scores` (n,), in order, the first of equal ones first; those of -inf are left out."""
    count = min(count, len(scores))
    if not count:
        return np.zeros(0, np.int64)
    least = np.partition(scores, len(scores) - count)[len(scores) - count]
    places = np.flatnonzero((scores >= least) & (scores > -np.inf))
    return places[np.argsort(-scores[places], kind="stable")[:count]]


def _in_memory(embeddings: np.ndarray) -> torch.Tensor:
    """fp32, filled part by part so that no third copy is made."""
    values = torch.empty(embeddings.shape, dtype=torch.float32)
    for start in range(0, len(embeddings), 65536):
        values[start : start + 65536] = torch.from_numpy(np.array(embeddings[start : start + 65536]))
    return values
