"""Scores of pairs and of pointing, by hand."""

import pytest

from kaleido_fast.alignment.scores import CENTRAL, PairScore, merged


def bits(*positions: int) -> int:
    return sum(1 << position for position in positions)


def test_the_middle_comes_first() -> None:
    """Level 3's and level 5's middle cells, then level 4's four around the middle (0.177 away), then level 5's cross (0.2)."""
    assert CENTRAL[:2] == (5 + 4, 30 + 12)
    assert set(CENTRAL[2:6]) == {14 + 5, 14 + 6, 14 + 9, 14 + 10}
    assert set(CENTRAL[6:10]) == {30 + 7, 30 + 11, 30 + 13, 30 + 17}
    assert len(set(CENTRAL)) == 50 and min(CENTRAL) == 5


def test_by_hand() -> None:
    """Two aligned words and one that is not: 4 true pairs, 5 found, 2 of them right."""
    score = PairScore()
    score.add(truth=bits(5, 9, 42), touched=bits(5, 6, 9, 42), predicted=bits(5, 6, 9), strongest=6)  # 2 hits, points right
    score.add(truth=0, touched=bits(30), predicted=bits(14, 15), strongest=14)  # points wrong
    score.add(truth=bits(50), touched=bits(50), predicted=None, strongest=0)
    result = score.result()
    assert result["words"] == 3 and result["aligned_share"] == pytest.approx(2 / 3)
    assert result["pointing_accuracy"] == pytest.approx(1 / 2)
    assert result["precision"] == pytest.approx(2 / 5) and result["recall"] == pytest.approx(2 / 4)
    assert result["f1"] == pytest.approx(2 * 2 / (4 + 5))
    assert result["f1_random"] == pytest.approx(2 * (3 * 3 / 50 + 0 + 0) / (4 + 5))
    assert result["f1_centre"] == pytest.approx(2 * 2 / (4 + 5))  # 9, 42 and one of level 4 for the first word
    assert result["pointing_random"] == pytest.approx((4 + 1) / 50 / 2)
    assert result["pointing_centre"] == pytest.approx(1 / 2)
    assert result["patches_per_word"] == pytest.approx(5 / 3)


def test_sums_add_up() -> None:
    one, other = PairScore(), PairScore()
    one.add(bits(5), bits(5), bits(5), 5)
    other.add(bits(6), bits(6), bits(7), 7)
    assert merged([one, other]).result()["precision"] == pytest.approx(0.5)
    assert PairScore().result()["f1"] == 0
