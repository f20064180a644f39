"""The 1-in-101 protocol: always 101, sub-category before category before split, never the query's text."""

import numpy as np
import pytest

from kaleido_fast.tasks.candidates import CANDIDATES, Draw, draw_candidates


def _split(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    """n products: sub-category 0 with 200 members, then small ones of 30, four sub-categories a category."""
    random = np.random.default_rng(seed)
    subcategory = np.where(np.arange(n) < 200, 0, 1 + (np.arange(n) - 200) // 30)
    order = random.permutation(n)
    return {
        "subcategory": subcategory[order],
        "category": (subcategory // 4)[order],
        "text": random.integers(0, n // 2, n),
        "num_photos": random.integers(1, 4, n),
    }


def _draw(split: dict[str, np.ndarray], queries: int = 50, seed: int = 0, draw: int = 0) -> Draw:
    return draw_candidates(**split, num_queries=queries, seed=seed, draw=draw)


def test_always_101_different_products_and_never_the_query_text() -> None:
    split = _split(900)
    drawn = _draw(split, 120)
    assert drawn.candidates.shape == (120, CANDIDATES)
    assert drawn.num_candidates == CANDIDATES
    assert (drawn.candidates[:, 0] == drawn.queries).all()
    assert len(np.unique(drawn.queries)) == 120
    for row in drawn.candidates:
        assert len(np.unique(row)) == CANDIDATES
        assert (split["text"][row[1:]] != split["text"][row[0]]).all()


def test_filled_from_subcategory_before_category() -> None:
    split, overflowing = _split(900), 0
    for query, *others in _draw(split, 200).candidates:
        allowed = split["text"] != split["text"][query]
        same = np.flatnonzero((split["subcategory"] == split["subcategory"][query]) & allowed)
        if len(same) >= CANDIDATES - 1:
            assert np.isin(others, same).all()
        else:
            assert np.isin(same, others).all()
            overflowing += 1
    assert 0 < overflowing < 200


def test_category_is_exhausted_before_the_split_is_used() -> None:
    n = 300
    split = {
        "subcategory": np.arange(n) // 20,
        "category": np.arange(n) // 60,
        "text": np.arange(n),
        "num_photos": np.ones(n, np.int64),
    }
    for row in _draw(split, 300).candidates:
        assert np.isin(np.flatnonzero(split["category"] == split["category"][row[0]]), row).all()
        assert (split["category"][row] != split["category"][row[0]]).sum() == CANDIDATES - 60


def test_too_few_candidates_are_counted() -> None:
    split = {
        "subcategory": np.zeros(40, int),
        "category": np.zeros(40, int),
        "text": np.arange(40) // 2,
        "num_photos": np.ones(40, int),
    }
    drawn = _draw(split, 500)
    assert len(drawn.queries) == 40
    assert drawn.num_candidates == 39  # 40 less the one other product with the query's text
    assert drawn.candidates.min() == -1


def test_seed_and_draw_decide_alone() -> None:
    split = _split(900)
    assert (_draw(split).candidates == _draw(split).candidates).all()
    assert (_draw(split).candidates != _draw(split, draw=1).candidates).any()
    assert (_draw(split).candidates != _draw(split, seed=1).candidates).any()


def test_one_existing_photograph_each() -> None:
    split = _split(900)
    photos = _draw(split).photos
    assert ((photos >= 0) & (photos < split["num_photos"])).all()
    assert photos.max() == 2


def test_every_product_of_the_subcategory_can_be_a_candidate() -> None:
    split = _split(900)
    seen = np.unique(np.concatenate([_draw(split, 200, draw=d).candidates[:, 1:].ravel() for d in range(4)]))
    assert len(seen) > 890


@pytest.mark.parametrize("text", [np.zeros(5, int), np.zeros(1, int)])
def test_a_split_without_two_texts_is_refused(text: np.ndarray) -> None:
    n = len(text)
    with pytest.raises(
        ValueError, match=rf"two products with different texts, the split has {n} products and 1 text"
    ):
        draw_candidates(
            np.zeros(n, int), np.zeros(n, int), text, np.ones(n, int), num_queries=3, seed=0, draw=0
        )
