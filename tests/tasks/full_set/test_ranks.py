"""Ranks among all products against plain NumPy that compares every query with every candidate."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from kaleido_fast.tasks.full_set import compared, first
from kaleido_fast.tasks.full_set.compared import AllPairs
from kaleido_fast.tasks.full_set.first import first_by_cosine
from kaleido_fast.tasks.full_set.measure import full_set_report
from kaleido_fast.tasks.full_set.ranks import full_set_ranks
from kaleido_fast.tasks.products import Products
from tests.tasks.drawn_products import NUMBER, drawn_products

SCALE = 3.0


class Drawn:
    """Drawn embeddings and match scores of each photograph with each text; counts what was scored."""

    def __init__(self, products: Products, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        self.photographs, self.texts = (_unit(random.normal(size=(count, 6))) for count in (2 * NUMBER, NUMBER))
        self.texts = self.texts[products.first_of_text[products.text]]  # equal texts have equal embeddings
        self.photographs[2 * 4 + 1] = self.photographs[2 * 9]  # a tie that is not of one text
        self.matching = random.normal(size=(2 * NUMBER, NUMBER)).astype(np.float32)
        self.matching = np.round(self.matching, 1)  # ties
        self.scored = 0
        scale = torch.tensor(SCALE)
        self.model = SimpleNamespace(contrast=SimpleNamespace(scale=lambda: scale))

    def embed_photographs(self, samples: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(self.photographs[samples])

    def embed_texts(self, products: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(self.texts[products])

    def score(self, samples: np.ndarray, products: np.ndarray) -> np.ndarray:
        self.scored += len(samples)
        return self.matching[samples, products]


def _unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def brute_force(
    products: Products, photos: np.ndarray, queries: np.ndarray, drawn: Drawn, rerank: int, contrast: bool
) -> dict[str, list[int]]:
    """Query by query: all candidates sorted by cosine, the first of them sorted again."""
    ranks: dict[str, list[int]] = {"itr": [], "tir": []}
    samples = products.first_sample + photos
    cosines = (drawn.photographs[samples].astype(np.float64) @ drawn.texts.astype(np.float64).T).astype(np.float32)
    matching = drawn.matching[samples].astype(np.float64)
    for query in queries:
        for side, cosine, match in (("itr", cosines[query], matching[query]), ("tir", cosines[:, query], matching[:, query])):
            others = [other for other in range(len(products)) if products.text[other] != products.text[query]]
            if not contrast:
                ranks[side].append(1 + sum(match[other] >= match[query] for other in others))
                continue
            order = sorted([*others, query], key=lambda one: (-cosine[one], one == query, one))
            place, head = order.index(query), order[:rerank]
            if query in head:
                both = match + SCALE * cosine
                place = sum(both[other] >= both[query] for other in head if other != query)
            ranks[side].append(1 + place)
    return ranks


@pytest.mark.parametrize("rerank", [0, 1, 5, NUMBER, 1000])
@pytest.mark.parametrize("num_queries", [7, NUMBER])
@pytest.mark.parametrize("contrast", [True, False])
def test_ranks_equal_brute_force(monkeypatch, rerank: int, num_queries: int, contrast: bool) -> None:
    monkeypatch.setattr(first, "SCORES_AT_ONCE", 3 * NUMBER)
    monkeypatch.setattr(compared, "PAIRS_AT_ONCE", 2 * NUMBER + 1)
    products = drawn_products(equal=(19, 0))
    random = np.random.default_rng(1)
    photos, queries = random.integers(0, 2, NUMBER), np.sort(random.permutation(NUMBER)[:num_queries])
    photos[4], photos[9] = 1, 0
    drawn = Drawn(products)
    result = full_set_ranks(products, photos, queries, drawn, rerank=rerank, batch_pairs=6, contrast=contrast)
    expected = brute_force(products, photos, queries, drawn, rerank, contrast)
    shown = list(result.ranks)[-1]
    assert shown == ("itm" if not contrast else "both" if rerank else "itc")
    assert {side: ranks.tolist() for side, ranks in result.ranks[shown].items()} == expected
    if contrast:
        by_cosine = brute_force(products, photos, queries, drawn, 0, True)
        assert {side: ranks.tolist() for side, ranks in result.ranks["itc"].items()} == by_cosine
    assert result.pairs == drawn.scored
    left_out = {0, 19} & set(queries.tolist())
    assert result.candidates.tolist() == [NUMBER - (query in left_out) for query in queries]


def test_a_pair_is_scored_once_for_both_directions_and_foretold(capsys: pytest.CaptureFixture[str]) -> None:
    products = drawn_products(equal=(19, 0))
    drawn, queries = Drawn(products), np.arange(NUMBER)
    full_set_ranks(products, np.zeros(NUMBER, np.int64), queries, drawn, rerank=0, batch_pairs=64, contrast=False)
    assert drawn.scored == NUMBER * NUMBER - 2  # the two pairs of equal texts are left out
    line = capsys.readouterr().out
    assert line.startswith(f"full set: {NUMBER * (NUMBER - 1) - 2} pairs of {NUMBER} products by matching, about 0.")
    assert "eval.full_set_queries=N asks fewer" in line


def test_all_pairs_know_how_many_they_are(monkeypatch) -> None:
    monkeypatch.setattr(compared, "PAIRS_AT_ONCE", 30)
    text = np.array([0, 1, 1, 2, 3, 1, 0, 4])
    for queries in ([0], [1, 2], [1, 3, 6], list(range(8))):
        pairs = AllPairs(np.array(queries), text)
        assert len(pairs) == sum(len(block.texts) for block in pairs.blocks())


def test_a_query_beyond_the_first_is_not_scored_again() -> None:
    """At 0 and 90 degrees: the right text of the second photograph stands last."""
    photographs, texts = np.array([[1, 0], [1, 0]], np.float32), np.array([[1, 0], [0, 1]], np.float32)
    found = first_by_cosine(np.arange(2), photographs, texts, np.arange(2), 1)
    assert found.ranks.tolist() == [1, 2] and found.others.shape == (2, 0)
    found = first_by_cosine(np.arange(2), photographs, texts, np.arange(2), 2)
    assert found.others.tolist() == [[1], [0]]


def test_figures_by_hand() -> None:
    products = drawn_products()
    result = full_set_ranks(products, np.zeros(NUMBER, np.int64), np.array([2, 3]), Drawn(products), rerank=0, batch_pairs=8,
                            contrast=True)
    result.ranks["itc"] = {"itr": np.array([1, 4]), "tir": np.array([2, 20])}
    report = full_set_report(result, NUMBER, 0)
    figures = report["rankings"]["itc"]
    assert figures["itr"] == {"R@1": 0.5, "R@5": 1.0, "R@10": 1.0, "MRR": 0.625}
    assert figures["tir"] == {"R@1": 0.0, "R@5": 0.5, "R@10": 0.5, "MRR": pytest.approx(0.275)}
    assert figures["mean_recall"] == pytest.approx(3.5 / 6)
    assert (report["candidates"], report["left_out"], report["pairs_per_s"]) == (NUMBER, 0, None)
