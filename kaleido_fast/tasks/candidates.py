"""The 1-in-101 protocol (SPEC 9): which products are queries, and which 101 each is ranked among."""

from dataclasses import dataclass

import numpy as np

CANDIDATES = 101  # the right one and 100 others


@dataclass(frozen=True, slots=True)
class Draw:
    """One draw. Products are ranks in the split; -1 fills up where the split has too few candidates."""

    queries: np.ndarray  # (Q,) int64 products
    candidates: np.ndarray  # (Q, 101) int64 products, column 0 the query itself
    photos: np.ndarray  # (products,) int64, which of a product's photographs stands for it, from 0

    @property
    def present(self) -> np.ndarray:
        """(Q, 101) bool."""
        return self.candidates >= 0

    def some(self, count: int) -> "Draw":
        """The same draw with `count` of its queries, spread evenly over them; all where it has no more."""
        rows = np.arange(min(count, len(self.queries))) * len(self.queries) // max(min(count, len(self.queries)), 1)
        return Draw(self.queries[rows], self.candidates[rows], self.photos)

    @property
    def num_candidates(self) -> int:
        """Candidates of the query that has the fewest, the right one included."""
        return int(self.present.sum(axis=1).min())


def draw_candidates(
    subcategory: np.ndarray,
    category: np.ndarray,
    text: np.ndarray,
    num_photos: np.ndarray,
    *,
    num_queries: int,
    seed: int,
    draw: int,
) -> Draw:
    """Queries and their candidates, drawn by PCG64 from (seed, draw).

    Others come from the query's sub-category, then its category, then the split; never with the query's text.

    Args:
        subcategory, category: (n,) int of each product of the split.
        text: (n,) int, equal where two products have the same token ids, cut to T.
        num_photos: (n,) int, photographs of each product.
        num_queries: all products where the split has fewer.
    Raises:
        ValueError: the split has no two products with different texts.
    """
    if len(text) < 2 or (text == text[0]).all():
        raise ValueError(
            f"retrieval needs two products with different texts, the split has {len(text)} products and "
            f"{len(np.unique(text))} text(s); prepare a larger catalogue"
        )
    random = np.random.Generator(np.random.PCG64([seed, draw]))
    photos, queries = draw_queries(random, num_photos, num_queries)
    tiers = (_Members(subcategory), _Members(category), _Members(np.zeros(len(text), np.int64)))
    candidates = np.full((len(queries), CANDIDATES), -1, np.int64)
    for row, query in zip(candidates, queries, strict=True):
        others = _draw_others(query, tiers, text, random)
        row[0], row[1 : 1 + len(others)] = query, others
    return Draw(queries, candidates, photos)


def draw_queries(random: np.random.Generator, num_photos: np.ndarray, num_queries: int) -> tuple[np.ndarray, np.ndarray]:
    """(n,) int64 which photograph stands for each product, whatever `num_queries`; (Q,) int64 queries, ascending."""
    photos = random.integers(0, num_photos)
    return photos, np.sort(random.choice(len(num_photos), min(num_queries, len(num_photos)), replace=False))


def _draw_others(
    query: int, tiers: tuple["_Members", ...], text: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    chosen = np.empty(0, np.int64)
    for tier in tiers:
        pool = tier.of(query)
        pool = pool[(text[pool] != text[query]) & ~np.isin(pool, chosen)]
        room = CANDIDATES - 1 - len(chosen)
        chosen = np.concatenate([chosen, random.choice(pool, min(room, len(pool)), replace=False)])
        if len(chosen) == CANDIDATES - 1:
            break
    return chosen


class _Members:
    """The products of each class, found without a walk over all products."""

    def __init__(self, classes: np.ndarray) -> None:
        self._classes = classes
        self._by_class = np.argsort(classes, kind="stable")
        self._sorted = classes[self._by_class]

    def of(self, product: int) -> np.ndarray:
        """Products of the class of `product`, ascending."""
        its_class = self._classes[product]
        first, last = np.searchsorted(self._sorted, its_class, "left"), np.searchsorted(self._sorted, its_class, "right")
        return self._by_class[first:last]
