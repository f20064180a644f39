"""The drawn lists against a slow twin in plain Python, one product at a time."""

import math

import numpy as np
import pytest
import torch

from kaleido_fast.training.mining import lists
from kaleido_fast.training.mining.lists import EmbeddedProducts, draw_lists

N, SEED, EPOCH, COUNT = 60, 2**40 + 9, 3, 5
MULTIPLIERS, KEY_STEPS, WORD = (0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85), 0xFFFFFFFF


def _first_word(key: tuple[int, int], counter: tuple[int, int, int, int]) -> int:
    """Of Philox-4x32-10."""
    (k0, k1), (c0, c1, c2, c3) = key, counter
    for _ in range(10):
        high0, low0 = divmod(MULTIPLIERS[0] * c0, 1 << 32)
        high1, low1 = divmod(MULTIPLIERS[1] * c2, 1 << 32)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + KEY_STEPS[0]) & WORD, (k1 + KEY_STEPS[1]) & WORD
    return c0


def _slow(products: EmbeddedProducts, members: list[int], place: int, looked_at: int) -> list[int]:
    product = members[place]
    if not products.has_photograph[product]:
        return []
    others = [members[(place + 1 + step) % len(members)] for step in range(min(looked_at, len(members) - 1))]
    values = {}
    for other in others:
        if not products.has_text[other] or products.readings[other] == products.readings[product]:
            continue
        pairs = zip(products.photographs[product].tolist(), products.texts[other].tolist(), strict=True)
        key = int(products.keys[product]) % 2**64
        word = _first_word((SEED & WORD, SEED >> 32), (other, EPOCH * 16 + 4, key & WORD, key >> 32))
        noise = -math.log(-math.log((word + 0.5) / 2**32))
        values[other] = sum(a * b for a, b in pairs) * products.scale + noise
    return sorted(sorted(values, key=lambda other: -values[other])[:COUNT])


@pytest.fixture
def products() -> EmbeddedProducts:
    """With keys of every sign, texts that read alike, and products without a photograph or without a text."""
    torch.manual_seed(0)
    sides = torch.nn.functional.normalize(torch.randn(2, N, 8), dim=2)
    rng = np.random.default_rng(0)
    keys = rng.integers(-(2**63), 2**63, N)
    return EmbeddedProducts(sides[0], sides[1], 14.0, keys, rng.integers(0, 20, N), rng.random(N) < 0.8, rng.random(N) < 0.8)


@pytest.mark.parametrize("looked_at", [8192, 7])
@pytest.mark.parametrize("entries", [1 << 20, 40, 1])  # comparisons at once
@pytest.mark.parametrize("size", [1, 2, 13, 40])
def test_equals_the_slow_version(
    products: EmbeddedProducts, monkeypatch: pytest.MonkeyPatch, looked_at: int, entries: int, size: int
) -> None:
    monkeypatch.setattr(lists, "LOOKED_AT", looked_at)
    monkeypatch.setattr(lists, "ENTRIES", entries)
    members = np.sort(np.random.default_rng(size).permutation(N)[:size])
    for first, last in ((0, size), (size // 3, size), (size // 2, size // 2)):
        drawn = draw_lists(products, members, first, last, count=COUNT, seed=SEED, epoch=EPOCH, device=torch.device("cpu"))
        assert drawn.dtype == np.int32 and drawn.shape == (last - first, COUNT)
        for row, place in zip(drawn.tolist(), range(first, last), strict=True):
            expected = _slow(products, members.tolist(), place, looked_at)
            assert row == expected + [-1] * (COUNT - len(expected))


def test_they_are_drawn_in_proportion_to_exp_of_similarity_over_temperature(products: EmbeddedProducts) -> None:
    """How often each of three texts comes first, over 4,000 minings."""
    sides = torch.eye(4)
    photograph = torch.tensor([0.0, 0.9, 0.3, 0.1]).expand(4, 4)
    drawn = EmbeddedProducts(photograph, sides, 2.0, np.arange(4), np.arange(4), np.ones(4, bool), np.ones(4, bool))
    firsts = [int(draw_lists(drawn, np.arange(4), 0, 1, count=1, seed=0, epoch=epoch, device=torch.device("cpu"))[0, 0])
              for epoch in range(4000)]
    weights = np.exp(2.0 * np.array([0.9, 0.3, 0.1]))
    shares = np.bincount(firsts, minlength=4)[1:] / len(firsts)
    assert np.abs(shares - weights / weights.sum()).max() < 0.025
