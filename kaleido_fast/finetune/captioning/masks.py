"""Which words a caption's training hides and predicts, drawn on the host (SPEC 11; words of SPEC 6, stream 1)."""

from typing import NamedTuple

import numpy as np

from kaleido_fast.kernels.plan_rules import IGNORED
from kaleido_fast.model.embeddings import FRAME

TENTHS, MASKED, DRAWN = 10, 8, 9  # below 8 of 10 [MASK], below 9 another word, else the word itself


class CaptionTargets(NamedTuple):
    """What is shown and what is predicted."""

    tokens: np.ndarray  # (B, T) int32, as shown
    labels: np.ndarray  # (B, T) int64: what the output of this place predicts, IGNORED where nothing


def counted_texts(lengths: np.ndarray, present: np.ndarray) -> np.ndarray:
    """(B,) bool: samples that are there and whose text has a word."""
    return present & (lengths > FRAME)


def masked_targets(
    tokens: np.ndarray, lengths: np.ndarray, is_cut: np.ndarray, words: np.ndarray, share: float, *, mask_id: int,
    ordinary: tuple[int, int],
) -> CaptionTargets:
    """Of m words and [SEP] the max(1, floor(share (m + 1) + 1/2)) with the greatest fill priority are hidden.

    Args:
        tokens: (B, T) int32; lengths: (B,) with [CLS] and [SEP].
        is_cut: (B,) bool, the text goes on behind its [SEP], which is no target then.
        words: (4, B, T) int64 random words by place (stream 1).
        ordinary: first and last ordinary id.
    """
    places = np.arange(tokens.shape[1])
    last = (lengths - 1)[:, None]
    may = (places >= 1) & (places <= last)
    count = np.maximum(1, np.floor(share * last + 0.5).astype(np.int64))
    order = np.argsort(np.where(may, -words[0], 1), axis=1, kind="stable")  # priorities are not negative: others come last
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, places[None].repeat(len(tokens), 0), axis=1)
    chosen = may & (rank < count) & ~((places == last) & is_cut[:, None])
    tenth = (words[1] * TENTHS) >> 32
    first, final = ordinary
    drawn = first + ((words[2] * (final - first + 1)) >> 32)
    shown = np.where(tenth < MASKED, mask_id, np.where(tenth < DRAWN, drawn, tokens))
    return CaptionTargets(np.where(chosen, shown, tokens).astype(np.int32), np.where(chosen, tokens, IGNORED).astype(np.int64))


def next_targets(tokens: np.ndarray, lengths: np.ndarray, is_cut: np.ndarray) -> CaptionTargets:
    """Each place predicts the word behind it, the last word [SEP] unless the text is cut; arguments as above."""
    places, last = np.arange(tokens.shape[1]), (lengths - 1)[:, None]
    following = np.roll(tokens, -1, axis=1).astype(np.int64)
    return CaptionTargets(tokens, np.where(places < last - is_cut[:, None], following, IGNORED))
