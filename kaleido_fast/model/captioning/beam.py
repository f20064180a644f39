"""Beam search over the words of captions, of many photographs at once (SPEC 11).

A finished caption is worth log probability / length^penalty, [SEP] counted. No word-piece 3-gram occurs twice. A caption of the
most word pieces is ended. A photograph is done when as many captions as there are beams are finished.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Next = Callable[[Tensor, Tensor], Tensor]  # (words (n,), parents (n,)) -> (n, V) log probabilities
NEVER = float("-inf")


def beam_search(
    following: Next, count: int, *, beams: int, start: int, end: int, allowed: Tensor, most: int, penalty: float
) -> list[list[int]]:
    """The best caption of each of `count` photographs: its ids without `start` and `end`.

    Args:
        following: log probabilities of the word behind each of count * beams captions, those of a photograph together.
        allowed: (V,) bool, on the device: words that may stand in a caption.
        most: word pieces of a caption.
        penalty: power of the length.
    """
    device, size = allowed.device, len(allowed)
    captions: list[list[int]] = [[] for _ in range(count * beams)]
    finished: list[list[tuple[float, list[int]]]] = [[] for _ in range(count)]
    scores = torch.full((count, beams), NEVER, device=device)
    scores[:, 0] = 0.0
    words = torch.full((count * beams,), start, device=device)
    parents = torch.arange(count * beams, device=device)
    may, ends = allowed.clone(), torch.zeros_like(allowed)
    may[end] = ends[end] = True
    for place in range(most + 1):
        log_probabilities = following(words, parents).masked_fill(~(may if place < most else ends), NEVER)
        _forbid_repeats(log_probabilities, captions)
        totals = (scores[:, :, None] + log_probabilities.unflatten(0, (count, beams))).flatten(1)
        best, where = totals.topk(min(2 * beams, totals.shape[1]), dim=1)
        going_on = []
        for photograph, (values, places) in enumerate(zip(best.tolist(), where.tolist(), strict=True)):
            alive = []
            for rank, (value, candidate) in enumerate(zip(values, places, strict=True)):
                beam, word = divmod(candidate, size)
                if value == NEVER:
                    break
                if word != end:
                    alive.append((value, photograph * beams + beam, word))
                elif rank < beams and len(finished[photograph]) < beams:
                    caption = captions[photograph * beams + beam]
                    finished[photograph].append((value / (len(caption) + 1) ** penalty, caption))
            alive = alive[:beams]
            going_on += alive + [(NEVER, photograph * beams, end)] * (beams - len(alive))
        if all(len(of_one) >= beams for of_one in finished) or all(value == NEVER for value, _, _ in going_on):
            break
        captions = [[*captions[parent], word] for _, parent, word in going_on]
        scores = torch.tensor([value for value, _, _ in going_on], device=device).view(count, beams)
        parents = torch.tensor([parent for _, parent, _ in going_on], device=device)
        words = torch.tensor([word for _, _, word in going_on], device=device)
    return [max(of_one, key=lambda scored: scored[0])[1] if of_one else [] for of_one in finished]


def _forbid_repeats(log_probabilities: Tensor, captions: Sequence[list[int]]) -> None:
    """Take the chance off words that would end a 3-gram which their caption has."""
    rows, words = [], []
    for row, caption in enumerate(captions):
        last = caption[-2:]
        again = {caption[i + 2] for i in range(len(caption) - 2) if caption[i : i + 2] == last}
        rows += [row] * len(again)
        words += sorted(again)
    if rows:
        log_probabilities[rows, words] = NEVER
