"""Batched beam search that keeps what each word looked at.

A caption is the words up to the end token, or `max_words` words without one; its score is the sum of its log
probabilities. Each step keeps the `beam` best captions that go on; of those that end only the best is kept. A picture is
done when no caption that goes on is better than the one that has ended: probabilities only fall.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

S = TypeVar("S", bound=tuple)  # a tuple of (B, R, …) tensors
DecodingStep = Callable[[S, Tensor], tuple[Tensor, Tensor, S]]


class Caption(NamedTuple):
    """The best caption of a picture."""

    words: Tensor  # (n,) int64, without the end token
    attention: Tensor  # (n, L) fp32, where each word looked
    score: float  # sum of log probabilities, the end's too


@torch.no_grad()
def beam_search(step: DecodingStep, state: S, *, start_id: int, end_id: int, beam: int, max_words: int) -> list[Caption]:
    """The best caption of each of B pictures.

    Args:
        step: (state, words (B, R)) -> log probabilities (B, R, V), attention (B, R, L), state.
        state: (B, 1, …) tensors before the first word.
    """
    words = torch.full(state[0].shape[:2], start_id, dtype=torch.int64, device=state[0].device)
    search = _Search(len(words), words.device)
    scores = torch.zeros(words.shape, device=words.device)
    for number in range(max_words):
        log_probabilities, attention, state = step(state, words)
        totals = scores.unsqueeze(-1) + log_probabilities.float()  # (B, R, V)
        search.end(totals[:, :, end_id], number)
        totals[:, :, end_id] = -torch.inf
        scores, best = totals.flatten(1).topk(min(beam, totals[0].numel()), dim=1)
        parents, words = best // totals.shape[-1], best % totals.shape[-1]
        state = type(state)(*(_pick(part, parents) for part in state))
        search.add(words, parents, _pick(attention, parents))
        if search.is_done(scores):
            break
    search.cut(scores)
    return search.captions()


class _Search:
    """The words so far, and the best caption of each picture."""

    def __init__(self, num_pictures: int, device: torch.device) -> None:
        self._words: list[Tensor] = []  # (B, R) a step
        self._parents: list[Tensor] = []
        self._attention: list[Tensor] = []  # (B, R, L)
        self._score = torch.full((num_pictures,), -torch.inf, device=device)
        self._length = torch.zeros(num_pictures, dtype=torch.int64, device=device)
        self._last = torch.zeros(num_pictures, dtype=torch.int64, device=device)  # place of the last word in its step

    def end(self, totals: Tensor, length: int) -> None:
        """Captions of `length` words that end here, (B, R) scores."""
        score, last = totals.max(dim=1)
        better = score > self._score
        self._score = torch.where(better, score, self._score)
        self._length[better], self._last[better] = length, last[better]

    def add(self, words: Tensor, parents: Tensor, attention: Tensor) -> None:
        self._words.append(words)
        self._parents.append(parents)
        self._attention.append(attention)

    def is_done(self, scores: Tensor) -> bool:
        return bool((self._score >= scores[:, 0]).all())

    def cut(self, scores: Tensor) -> None:
        """Captions that the last step left unfinished are captions too."""
        self.end(scores, len(self._words))

    def captions(self) -> list[Caption]:
        return [self._caption(*entry) for entry in
                enumerate(zip(self._length.tolist(), self._last.tolist(), self._score.tolist(), strict=True))]

    def _caption(self, picture: int, ending: tuple[int, int, float]) -> Caption:
        length, place, score = ending
        words, attention = [], []
        for number in range(length - 1, -1, -1):
            words.append(int(self._words[number][picture, place]))
            attention.append(self._attention[number][picture, place])
            place = int(self._parents[number][picture, place])
        maps = torch.stack(attention[::-1]) if attention else self._attention[0][picture, :0]
        return Caption(torch.tensor(words[::-1], dtype=torch.int64), maps, score)


def _pick(values: Tensor, parents: Tensor) -> Tensor:
    """(B, R, …) -> (B, R', …), row parents[b, r] of each b."""
    index = parents.view(*parents.shape, *[1] * (values.dim() - 2)).expand(*parents.shape, *values.shape[2:])
    return values.gather(1, index)
