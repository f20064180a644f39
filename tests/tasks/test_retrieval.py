"""Retrieval with scorers whose right answer is known."""

import numpy as np
import pytest

from kaleido_fast.tasks.products import Products, build_products
from kaleido_fast.tasks.retrieval import (
    Ranked, Retrieval, draw_retrieval, photographs_of, retrieval_report, retrieve, sum_of_recalls,
)


class CountingScorer:
    """Scores by `rule(products of the photographs, of the texts)` and remembers what it was asked."""

    def __init__(self, products: Products, rule) -> None:
        self.owner = np.repeat(np.arange(len(products)), products.num_photos)
        self.rule, self.asked = rule, []

    def score(self, samples: np.ndarray, products: np.ndarray) -> np.ndarray:
        self.asked.append((samples, products))
        return self.rule(self.owner[samples], products).astype(np.float32)


@pytest.fixture(scope="module")
def products() -> Products:
    """400 products with 350 texts of 5 to 12 tokens, 1 to 3 photographs each, in five sub-categories."""
    random = np.random.default_rng(0)
    tokens = np.zeros((400, 12), np.int32)
    lengths = random.integers(5, 13, 400).astype(np.int32)
    for row, length in enumerate(lengths):
        tokens[row, :length] = random.integers(5, 900, length)
    tokens[350:], lengths[350:] = tokens[:50], lengths[:50]
    num_photos = random.integers(1, 4, 400)
    subcategory = random.integers(0, 5, 400)
    return build_products(
        subcategory // 3, subcategory, np.cumsum(num_photos) - num_photos, num_photos, tokens, lengths
    )


def _run(products: Products, rule, queries: int = 40, draws: int = 1) -> tuple[Retrieval, CountingScorer]:
    scorer = CountingScorer(products, rule)
    drawn = draw_retrieval(products, num_queries=queries, num_draws=draws, seed=0)
    return retrieve(products, drawn, scorer, batch_pairs=64), scorer


def test_the_right_answer_is_found_in_both_directions(products: Products) -> None:
    result, _ = _run(products, lambda image, text: products.text[image] == products.text[text])
    for direction in (result.itr, result.tir):
        report = retrieval_report(direction)
        assert (report["R@1"], report["R@5"], report["R@10"], report["R@100"]) == (1.0, 1.0, 1.0, 1.0)
        assert (report["queries"], report["candidates"], report["draws"]) == (40, 101, 1)


@pytest.mark.parametrize(
    "rule", [lambda image, text: np.zeros(len(image)), lambda image, text: np.full(len(image), np.nan)]
)
def test_constant_scores_find_nothing(products: Products, rule) -> None:
    result, _ = _run(products, rule)
    for direction in (result.itr, result.tir):
        assert retrieval_report(direction)["R@100"] == 0.0


def test_random_scores_are_at_chance(products: Products) -> None:
    random = np.random.default_rng(1)
    result, _ = _run(products, lambda image, text: random.random(len(image)), queries=400)
    assert retrieval_report(result.itr)["R@10"] == pytest.approx(10 / 101, abs=0.05)


def test_directions_are_not_mixed_up(products: Products) -> None:
    """A score that prefers images of low products ranks candidates in TIR and ties them all in ITR."""
    result, _ = _run(products, lambda image, text: -image)
    assert retrieval_report(result.itr)["R@100"] == 0.0
    draw = result.tir[0].draw
    expected = 1 + (draw.candidates[:, 1:] < draw.candidates[:, :1]).sum(axis=1)
    assert (result.tir[0].ranks == expected).all()


def test_scores_reach_their_places(products: Products) -> None:
    result, _ = _run(products, lambda image, text: 1000 * image + products.text[text], draws=2)
    for itr, tir in zip(result.itr, result.tir, strict=True):
        query, candidates = itr.draw.queries[:, None], itr.draw.candidates
        assert (itr.scores == 1000 * query + products.text[candidates]).all()
        assert (tir.scores == 1000 * candidates + products.text[query]).all()


def test_every_pair_once_in_batches_of_near_lengths(products: Products) -> None:
    _, scorer = _run(products, lambda image, text: image, draws=2)
    samples, texts = (np.concatenate(column) for column in zip(*scorer.asked, strict=True))
    assert len(np.unique(np.stack([samples, products.text[texts]]), axis=1).T) == len(samples)
    assert (np.diff(products.lengths[texts]) <= 0).all()
    assert all(len(asked) == 64 for asked, _ in scorer.asked[:-1])


def test_needed_photographs_are_exactly_those_scored(products: Products) -> None:
    drawn = draw_retrieval(products, num_queries=10, num_draws=2, seed=0)
    _, scorer = _run(products, lambda image, text: image, queries=10, draws=2)
    assert set(photographs_of(products, drawn)) == {int(s) for samples, _ in scorer.asked for s in samples}


def test_too_few_products_leave_columns_out() -> None:
    tokens = np.arange(20, dtype=np.int32)[:, None]
    ones = np.ones(20, np.int64)
    few = build_products(ones, ones, np.arange(20), ones, tokens, np.ones(20, np.int32))
    result, _ = _run(few, lambda image, text: np.zeros(len(image)))
    assert retrieval_report(result.itr)["candidates"] == 20
    assert (result.itr[0].ranks == 20).all()


def test_spread_over_draws(products: Products) -> None:
    result, _ = _run(products, lambda image, text: (image * 31 + text * 17) % 101, draws=3)
    report = retrieval_report(result.itr)
    values = [float((one.ranks <= 10).mean()) for one in result.itr]
    assert report["draws"] == 3
    assert report["R@10"] == pytest.approx(np.mean(values))
    assert report["spread"]["R@10"] == pytest.approx(np.std(values, ddof=1))


def test_sum_of_recalls_by_hand() -> None:
    itr = {"R@1": 0.2799, "R@5": 0.6009, "R@10": 0.6837, "R@100": 1.0}
    tir = {"R@1": 0.3388, "R@5": 0.6060, "R@10": 0.6859, "R@100": 1.0}
    assert sum_of_recalls(itr, tir) == pytest.approx(319.52)  # the paper's


def test_best_candidates_put_the_right_one_behind_its_ties(products: Products) -> None:
    draw = draw_retrieval(products, num_queries=2, num_draws=1, seed=0)[0]
    scores = np.zeros((2, 101), np.float32)
    scores[:, 7], scores[:, 3] = 2.0, 1.0
    ranked = Ranked(draw, scores)
    assert ranked.best(0, 2) == [7, 3]
    assert ranked.best(0, 101)[-1] == 0
    assert ranked.best(0, 101).index(0) + 1 == ranked.ranks[0]
