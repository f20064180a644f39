"""Image-text (ITR) and text-image retrieval (TIR), 1 in 101, by whatever scores pairs (SPEC 9).

Both directions use the same queries and candidates. An image-text pair that occurs more than once is scored
once, and pairs run in order of text length, so that a micro-batch holds texts of nearly one length.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from kaleido_fast.progress_bar import ProgressBar
from kaleido_fast.tasks.candidates import Draw, draw_candidates
from kaleido_fast.tasks.metrics import own_ranks, recall_at
from kaleido_fast.tasks.products import Products

RECALLS = (1, 5, 10, 100)
POOL = "subcategory"  # where the other candidates are from, as far as there are enough


class PairScorer(Protocol):
    """Scores image-text pairs; higher is a better match."""

    def score(self, samples: np.ndarray, products: np.ndarray) -> np.ndarray:
        """(n,) float of n pairs: photographs by sample number, texts by product; both (n,) int64."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """One direction of one draw: every query's scores over its candidates."""

    draw: Draw
    scores: np.ndarray  # (Q, 101) fp32, column 0 the right candidate

    @property
    def ranks(self) -> np.ndarray:
        """(Q,) int64 rank of the right candidate, from 1."""
        return own_ranks(self.scores, self.draw.present)

    def best(self, row: int, k: int) -> list[int]:
        """Columns of the best `k` candidates of a query, best first; the right one behind its ties."""
        order = np.lexsort((np.arange(self.scores.shape[1]) == 0, -self.scores[row]))
        return [int(column) for column in order if self.draw.present[row, column]][:k]


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Both directions, one entry a draw."""

    itr: tuple[Ranked, ...]
    tir: tuple[Ranked, ...]


def draw_retrieval(products: Products, *, num_queries: int, num_draws: int, seed: int) -> list[Draw]:
    """The draws of `draw_candidates` 0, 1, ... on the products of a split."""
    return [
        draw_candidates(
            products.subcategory,
            products.category,
            products.text,
            products.num_photos,
            num_queries=num_queries,
            seed=seed,
            draw=draw,
        )
        for draw in range(num_draws)
    ]


def photographs_of(products: Products, draws: Sequence[Draw]) -> np.ndarray:
    """Sample numbers of all photographs that the draws need, ascending, each once."""
    needed = [products.samples(np.unique(draw.candidates[draw.present]), draw.photos) for draw in draws]
    return np.unique(np.concatenate([np.empty(0, np.int64), *needed]))


class ComparedPairs:
    """The image-text pairs that all draws compare, in both directions, each once."""

    samples: np.ndarray  # (n,) int64 sample number of the photograph
    texts: np.ndarray  # (n,) int64 number of the text

    def __init__(self, products: Products, draws: Sequence[Draw]) -> None:
        self._draws = draws
        parts = [part for draw in draws for part in _pairs(products, draw)]
        pairs, places = np.unique(np.concatenate([part[0] for part in parts]), axis=0, return_inverse=True)
        self.samples, self.texts = pairs[:, 0], pairs[:, 1]
        self._places, self._present = places.reshape(-1), [present for _, present in parts]

    def score(self, products: Products, scorer: PairScorer, batch_pairs: int) -> np.ndarray:
        """(n,) fp32 of the pairs, with a progress bar. Longest first: memory peaks at once."""
        texts = products.first_of_text[self.texts]
        order = np.lexsort((self.samples, texts, -products.lengths[texts]))
        scores = np.empty(len(order), np.float32)
        with ProgressBar(len(order), "retrieval", "pair") as bar:
            for start in range(0, len(order), batch_pairs):
                part = order[start : start + batch_pairs]
                scores[part] = scorer.score(self.samples[part], texts[part])
                bar.update(len(part))
        return scores

    def places_of(self, some: "ComparedPairs") -> np.ndarray:
        """(m,) int64: where the m pairs of `some`, all of them among these, stand."""
        width = int(self.texts.max()) + 1
        return np.searchsorted(self.samples * width + self.texts, some.samples * width + some.texts)

    def ranked(self, scores: np.ndarray) -> Retrieval:
        """Every query's candidates under the pairs' scores (n,)."""
        by_place, ranked, start = scores[self._places], [], 0
        for index, present in enumerate(self._present):
            table = np.full(present.shape, -np.inf, np.float32)
            count = int(present.sum())
            table[present] = by_place[start : start + count]
            start += count
            ranked.append(Ranked(self._draws[index // 2], table))
        return Retrieval(tuple(ranked[0::2]), tuple(ranked[1::2]))


def retrieve(products: Products, draws: Sequence[Draw], scorer: PairScorer, batch_pairs: int) -> Retrieval:
    """Score every query against its candidates in both directions."""
    pairs = ComparedPairs(products, draws)
    return pairs.ranked(pairs.score(products, scorer, batch_pairs))


def retrieval_report(ranked: Sequence[Ranked]) -> dict[str, Any]:
    """eval.json's entry of one direction: mean recalls over the draws; their spread if several."""
    recalls = {f"R@{k}": [recall_at(one.ranks, k) for one in ranked] for k in RECALLS}
    report: dict[str, Any] = {name: float(np.mean(values)) for name, values in recalls.items()}
    report |= {
        "queries": len(ranked[0].draw.queries),
        "candidates": min(one.draw.num_candidates for one in ranked),
        "draws": len(ranked),
        "pool": POOL,
    }
    if len(ranked) > 1:
        report["spread"] = {name: float(np.std(values, ddof=1)) for name, values in recalls.items()}
    return report


def sum_of_recalls(itr: dict[str, Any], tir: dict[str, Any]) -> float:
    """SumR: R@1, R@5 and R@10 of both directions added up, in percent as papers print it."""
    return 100 * sum(one[f"R@{k}"] for one in (itr, tir) for k in (1, 5, 10))


def _pairs(products: Products, draw: Draw) -> list[tuple[np.ndarray, np.ndarray]]:
    """For ITR, then TIR: (n, 2) int64 pairs of sample and text number; their places in the (Q, 101) table."""
    present = draw.present
    query = np.broadcast_to(draw.queries[:, None], draw.candidates.shape)[present]
    candidate = draw.candidates[present]
    itr = np.stack([products.samples(query, draw.photos), products.text[candidate]], axis=1)
    tir = np.stack([products.samples(candidate, draw.photos), products.text[query]], axis=1)
    return [(itr, present), (tir, present)]
