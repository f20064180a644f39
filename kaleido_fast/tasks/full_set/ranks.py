"""Full-set retrieval: every product of the split is a candidate (SPEC 11).

With contrast the candidates are ranked by cosine (ITC), and the first `rerank` of them again by both; below these the order by
cosine stays. Without contrast all are ranked by matching (ITM), a pass of the encoder for each pair.

A query whose right candidate is not among the first keeps its rank by cosine, so that none of its pairs is scored.
"""

import time
from dataclasses import dataclass

import numpy as np

from kaleido_fast.progress_bar import ProgressBar, write_line
from kaleido_fast.tasks.encoding import PooledEncoder
from kaleido_fast.tasks.full_set.compared import AllPairs, Compared, FirstPairs
from kaleido_fast.tasks.full_set.first import first_by_cosine
from kaleido_fast.tasks.products import Products
from kaleido_fast.tasks.rankings import Embeddings, embed_sides


@dataclass(frozen=True, slots=True)
class FullSetRanks:
    """Ranks of the right candidate among all products of the split."""

    queries: np.ndarray  # (Q,) int64 products, ascending
    candidates: np.ndarray  # (Q,) int64 candidates of each, the right one included
    ranks: dict[str, dict[str, np.ndarray]]  # by ranking, then by direction ("itr", "tir"): (Q,) int64 from 1
    pairs: int  # scored by matching
    seconds: float  # that they took


def full_set_ranks(
    products: Products, photos: np.ndarray, queries: np.ndarray, encoder: PooledEncoder, *, rerank: int, batch_pairs: int,
    contrast: bool,
) -> FullSetRanks:
    """Rank the right candidate of each query, photograph to text and text to photograph.

    Args:
        photos: (n,) int64, which of a product's photographs stands for it.
        queries: (Q,) int64 products, ascending.
        rerank: how many are ranked again; 0: none.
        contrast: whether the model has trained heads for contrast.
    """
    sharers = np.bincount(products.text)[products.text[queries]]
    candidates = len(products) - sharers + 1
    if not contrast:
        matched = _Matching(products, photos, encoder, batch_pairs, None)
        ranks = matched.ranks(queries, AllPairs(queries, products.text), "matching")
        return FullSetRanks(queries, candidates, {"itm": ranks}, matched.pairs, matched.seconds)
    everyone = np.arange(len(products))
    sides = embed_sides(encoder, products, products.samples(everyone, photos), everyone, batch_pairs)
    itr = first_by_cosine(queries, sides.photographs[queries], sides.texts, products.text, rerank)
    tir = first_by_cosine(queries, sides.texts[queries], sides.photographs, products.text, rerank)
    by_cosine = {"itr": itr.ranks, "tir": tir.ranks}
    if not rerank:
        return FullSetRanks(queries, candidates, {"itc": by_cosine}, 0, 0.0)
    matched = _Matching(products, photos, encoder, batch_pairs, sides)
    again = matched.ranks(queries, FirstPairs(queries, itr.others, tir.others, len(products)),
                          f"matching among the first {rerank:,} by cosine")
    both = {side: np.where(ranks <= rerank, again[side], ranks) for side, ranks in by_cosine.items()}
    return FullSetRanks(queries, candidates, {"itc": by_cosine, "both": both}, matched.pairs, matched.seconds)


class _Matching:
    """Scores pairs by matching, or by both where there are `sides`; counts pairs and time."""

    def __init__(
        self, products: Products, photos: np.ndarray, encoder: PooledEncoder, batch_pairs: int, sides: Embeddings | None
    ) -> None:
        self._products, self._photos, self._encoder, self._batch, self._sides = products, photos, encoder, batch_pairs, sides
        self.pairs, self.seconds = 0, 0.0

    def ranks(self, queries: np.ndarray, compared: Compared, ranked_by: str) -> dict[str, np.ndarray]:
        """(Q,) int64 ranks of the right candidate by direction, from 1, among what it is compared with."""
        count = len(self._products)
        right_scores, ahead = np.full(count, np.nan), {side: np.zeros(count, np.int64) for side in ("itr", "tir")}
        with ProgressBar(len(queries) + len(compared), "full set", "pair") as bar:
            right_scores[queries] = self._scores(queries, queries, bar)
            rate = self.pairs / self.seconds
            write_line(f"full set: {len(compared):,} pairs of {count:,} products by {ranked_by}, about "
                       f"{len(compared) / rate / 60:,.1f} minutes at {rate:,.0f} pairs/s; eval.full_set_queries=N asks fewer")
            for photographs, texts, for_photograph, for_text in compared.blocks():
                scores = self._scores(photographs, texts, bar)
                for side, query, counts in (("itr", photographs, for_photograph), ("tir", texts, for_text)):
                    counts = counts & ~(scores < right_scores[query])
                    ahead[side] += np.bincount(query[counts], minlength=count)
        return {side: 1 + counts[queries] for side, counts in ahead.items()}

    def _scores(self, photographs: np.ndarray, texts: np.ndarray, bar: ProgressBar) -> np.ndarray:
        """(m,) float64 of pairs of products."""
        scores, started = np.empty(len(photographs)), time.perf_counter()
        samples = self._products.samples(photographs, self._photos)
        for start in range(0, len(scores), self._batch):
            part = slice(start, start + self._batch)
            scores[part] = self._encoder.score(samples[part], texts[part])
            if self._sides is not None:
                assert self._encoder.model.contrast is not None
                scale = self._encoder.model.contrast.scale().item()
                scores[part] += scale * self._sides.cosines(photographs[part], texts[part])
            bar.update(len(samples[part]))
        self.pairs += len(scores)
        self.seconds += time.perf_counter() - started
        return scores
