"""Beam search against all captions there are, and against a plain one over lists."""

import itertools
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from kaleido_fast.alignment.beam import beam_search

V, END, START, MOST = 4, 0, 3, 3


class Prefix(NamedTuple):
    """The toy's state: the number of the prefix in base V, and which picture it is."""

    number: Tensor  # (B, R, 1)
    picture: Tensor  # (B, R, 1)


class Toy:
    """Log probabilities drawn for every prefix of every picture; attention names the prefix."""

    def __init__(self, pictures: int, seed: int, end_bonus: float = 0.0) -> None:
        generator = torch.Generator().manual_seed(seed)
        logits = 2 * torch.randn(pictures, V ** (MOST + 2), V, generator=generator, dtype=torch.float64)
        logits[..., END] += end_bonus
        self.table = logits.log_softmax(-1)
        self.pictures = pictures

    def start(self) -> Prefix:
        return Prefix(torch.zeros(self.pictures, 1, 1), torch.arange(self.pictures).view(-1, 1, 1).float())

    def __call__(self, state: Prefix, words: Tensor) -> tuple[Tensor, Tensor, Prefix]:
        number = state.number * V + words.unsqueeze(-1)
        log_probabilities = self.table[state.picture.long().squeeze(-1), number.long().squeeze(-1)]
        return log_probabilities, torch.cat([number, state.picture], -1), Prefix(number, state.picture)

    def prefix(self, words: tuple[int, ...]) -> int:
        number = 0
        for word in (START, *words):
            number = number * V + word
        return number

    def score(self, picture: int, words: tuple[int, ...], ended: bool) -> float:
        steps = [(words[:place], word) for place, word in enumerate(words)] + ([(words, END)] if ended else [])
        return sum(float(self.table[picture, self.prefix(before), word]) for before, word in steps)


def every_caption(toy: Toy, picture: int) -> tuple[float, tuple[int, ...]]:
    found = []
    for length in range(MOST + 1):
        for words in itertools.product(range(1, V), repeat=length):
            found.append((toy.score(picture, words, ended=True), words))
            if length == MOST:
                found.append((toy.score(picture, words, ended=False), words))
    return max(found)


def plain_beam(toy: Toy, picture: int, beam: int) -> tuple[float, tuple[int, ...]]:
    live, ended = [(0.0, ())], []
    for _ in range(MOST):
        ended += [(toy.score(picture, words, ended=True), words) for _, words in live]
        grown = [(toy.score(picture, (*words, word), ended=False), (*words, word)) for _, words in live
                 for word in range(1, V)]
        live = sorted(grown, reverse=True)[:beam]
    return max(ended + live)


def search(toy: Toy, beam: int) -> list:
    return beam_search(toy, toy.start(), start_id=START, end_id=END, beam=beam, max_words=MOST)


@pytest.mark.parametrize("end_bonus", [-2.0, 0.0, 2.0, 5.0])
def test_a_wide_beam_finds_the_best_of_all_captions(end_bonus: float) -> None:
    toy, lengths = Toy(24, seed=1, end_bonus=end_bonus), set()
    for picture, caption in enumerate(search(toy, beam=V**MOST)):
        score, words = every_caption(toy, picture)
        assert tuple(caption.words.tolist()) == words
        assert caption.score == pytest.approx(score, abs=1e-5)
        lengths.add(len(words))
    assert len(lengths) > 1 or end_bonus in (-2.0, 5.0)


@pytest.mark.parametrize("beam", [1, 2, 3])
def test_a_narrow_beam_is_the_plain_one(beam: int) -> None:
    toy = Toy(40, seed=2)
    misses = 0
    for picture, caption in enumerate(search(toy, beam)):
        score, words = plain_beam(toy, picture, beam)
        assert tuple(caption.words.tolist()) == words
        assert caption.score == pytest.approx(score, abs=1e-5)
        misses += words != every_caption(toy, picture)[1]
    assert misses or beam > 1, "a beam of one that always finds the best shows nothing"


def test_each_word_keeps_what_it_looked_at() -> None:
    toy = Toy(16, seed=3, end_bonus=-6.0)
    for picture, caption in enumerate(search(toy, beam=3)):
        words = tuple(caption.words.tolist())
        assert len(words) >= 1
        expected = [[toy.prefix(words[:place]), picture] for place in range(len(words))]
        assert caption.attention.tolist() == expected


def test_a_picture_that_says_nothing_has_no_attention() -> None:
    captions = search(Toy(3, seed=4, end_bonus=50.0), beam=2)
    assert [len(caption.words) for caption in captions] == [0, 0, 0]
    assert captions[0].attention.shape == (0, 2)
