"""Philox-4x32-10: published answers, indexing, and the words' distribution."""

import pytest
import torch

from kaleido_fast.kernels.philox import EVALUATION_EPOCH, PAIR, PATCH, SAMPLE, TOKEN, below, draw, philox

stats = pytest.importorskip("scipy.stats", reason="statistics need scipy")

KNOWN_ANSWERS = [  # Random123's kat_vectors, "philox4x32 10": counter, key, words
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words_of(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_known_answers(counter: str, key: str, words: str) -> None:
    drawn = philox(*words_of(key), *words_of(counter))
    assert [int(word) for word in drawn] == words_of(words)


def test_arguments_broadcast_and_high_bits_do_not_count() -> None:
    keys = torch.tensor([[1], [2], [-1]])
    counters = torch.arange(5)
    words = philox(keys, 7, counters, 0, 0, 0)
    assert [word.shape for word in words] == [(3, 5)] * 4
    alone = philox(2**32 - 1, 7 + (1 << 40), 4, 0, 0, 0)  # -1 has these low 32 bits
    assert [int(word[2, 4]) for word in words] == [int(word) for word in alone]


def test_every_argument_matters() -> None:
    arguments = [1, 2, 3, 4, 5, 6]
    start = torch.stack(philox(*arguments))
    for place in range(6):
        changed = list(arguments)
        changed[place] += 1
        assert not torch.equal(torch.stack(philox(*changed)), start)


def test_draw_lays_out_key_and_counter() -> None:
    """SPEC 6: key = (seed low, high); counter = (index, epoch * 16 + stream, sample key low, high)."""
    seed, sample_key = 0x11111111_22222222, -0x70000000_00000001
    low, high = sample_key & 0xFFFFFFFF, sample_key >> 32
    expected = philox(0x22222222, 0x11111111, 9, EVALUATION_EPOCH * 16 + 2, low, high)
    drawn = draw(torch.tensor(seed), torch.tensor(EVALUATION_EPOCH), torch.tensor(sample_key), PATCH, 9)
    assert torch.equal(torch.stack(drawn), torch.stack(expected))


def test_streams_differ() -> None:
    drawn = {tuple(int(word) for word in draw(1, 2, 3, stream, 0)) for stream in (PAIR, TOKEN, PATCH, SAMPLE)}
    assert len(drawn) == 4


@pytest.mark.parametrize("n", [1, 9, 16, 24, 30522])
def test_below_covers_its_range(n: int) -> None:
    edges = torch.tensor([0, 2**31, 2**32 - 1])
    assert below(edges, n).tolist() == [0, n // 2, n - 1]


@pytest.mark.parametrize("word", range(4))
@pytest.mark.parametrize("shift", [0, 24])
def test_bytes_of_neighbouring_counters_are_uniform(word: int, shift: int) -> None:
    drawn = draw(5, 0, torch.arange(64)[:, None], TOKEN, torch.arange(1024))[word]
    counts = ((drawn >> shift) & 255).flatten().bincount(minlength=256)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-4
