"""The ways to rank the same candidates (SPEC 10): by matching, by the cosine of embeddings, by both.

    itm     logit of a match over that of a mismatch
    itc     cosine of the embeddings of photograph and text, each alone
    both    itm + cosine / temperature: two logits, added up
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import Tensor

from kaleido_fast.progress_bar import ProgressBar
from kaleido_fast.tasks.candidates import Draw
from kaleido_fast.tasks.encoding import PooledEncoder
from kaleido_fast.tasks.products import Products
from kaleido_fast.tasks.retrieval import ComparedPairs, Retrieval

PAIRS_AT_ONCE = 8192  # whose embeddings are gathered: 32 MiB of 256 numbers


@dataclass(frozen=True, slots=True)
class Ranking:
    """One way to rank, as eval.json and the report know it."""

    suffix: str  # of its keys in eval.json, behind "itr", "tir" and "sum_r"
    title: str  # what it ranks by


RANKINGS = {
    "itm": Ranking("", "matching (ITM)"), "itc": Ranking("_itc", "cosine (ITC)"),
    "both": Ranking("_both", "matching and cosine (ITM + ITC)"),
}


def rank_candidates(
    products: Products, draws: Sequence[Draw], encoder: PooledEncoder, batch_pairs: int, *, contrast: bool,
    matching_queries: int = 0,
) -> dict[str, Retrieval]:
    """By ranking what it makes of the draws: matching alone, or with `contrast` all three.

    Args:
        matching_queries: of each draw, that are ranked by matching and by both where there is contrast; 0: all.
    """
    pairs = ComparedPairs(products, draws)
    if not contrast:
        return {"itm": pairs.ranked(pairs.score(products, encoder, batch_pairs))}
    assert encoder.model.contrast is not None
    matched = ComparedPairs(products, [draw.some(matching_queries) for draw in draws]) if matching_queries else pairs
    by_matching = matched.score(products, encoder, batch_pairs)
    cosines = cosine_scores(pairs, products, encoder, batch_pairs)
    by_both = by_matching + encoder.model.contrast.scale().item() * cosines[pairs.places_of(matched)]
    return {"itm": matched.ranked(by_matching), "itc": pairs.ranked(cosines), "both": matched.ranked(by_both)}


def shown_first(queries: Mapping[str, int]) -> list[str]:
    """The rankings that there are, the one that is shown first at the end: that of most queries, of several the last.

    Args:
        queries: by ranking, how many it ranked.
    """
    return sorted((name for name in RANKINGS if name in queries), key=lambda name: queries[name])


class Embeddings(NamedTuple):
    """Of photographs and of texts, each alone; fp32 of length 1."""

    photographs: np.ndarray  # (m, E)
    texts: np.ndarray  # (n, E)

    def cosines(self, photographs: np.ndarray, texts: np.ndarray) -> np.ndarray:
        """(k,) float64 of the pairs of these rows; sums are float64's, so that equal embeddings tie wherever they stand."""
        left, right = self.photographs[photographs], self.texts[texts]
        return np.einsum("ne,ne->n", left.astype(np.float64), right.astype(np.float64))


def embed_sides(
    encoder: PooledEncoder, products: Products, samples: np.ndarray, owners: np.ndarray, batch: int
) -> Embeddings:
    """Embeddings of photographs `samples` (m,) and of the texts of the products `owners` (n,)."""
    with ProgressBar(len(samples) + len(owners), "embeddings", "row") as bar:
        photographs = _embedded(encoder.embed_photographs, samples, np.arange(len(samples)), batch, bar)
        texts = _embedded(encoder.embed_texts, owners, np.argsort(-products.lengths[owners], kind="stable"), batch, bar)
    return Embeddings(photographs, texts)


def cosine_scores(pairs: ComparedPairs, products: Products, encoder: PooledEncoder, batch: int) -> np.ndarray:
    """(n,) float64 cosines of the pairs; each photograph and each text is embedded once."""
    samples, sample_of = np.unique(pairs.samples, return_inverse=True)
    texts, text_of = np.unique(pairs.texts, return_inverse=True)
    sides = embed_sides(encoder, products, samples, products.first_of_text[texts], batch)
    cosines = np.empty(len(pairs.samples))
    for part in _parts(len(cosines), PAIRS_AT_ONCE):
        cosines[part] = sides.cosines(sample_of.reshape(-1)[part], text_of.reshape(-1)[part])
    return cosines


def _embedded(
    embed: Callable[[np.ndarray], Tensor], numbers: np.ndarray, order: np.ndarray, batch: int, bar: ProgressBar
) -> np.ndarray:
    """(n, E) fp32 of the n `numbers`, computed in this order."""
    parts = []
    for part in _parts(len(numbers), batch):
        parts.append(embed(numbers[order[part]]).cpu().numpy())
        bar.update(len(parts[-1]))
    computed = np.concatenate(parts)
    embeddings = np.empty_like(computed)
    embeddings[order] = computed
    return embeddings


def _parts(count: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, count, size))
