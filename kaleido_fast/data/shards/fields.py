"""The fields of a text, such as its title and its colour: where each lies among the tokens.

The text is the fields that are not empty, joined by `SEPARATOR`. Its tokens hold each field's, in the same order, and one
token of the separator between two fields.
"""

from collections.abc import Sequence

import numpy as np

from kaleido_fast.data.shards.field_text import SEPARATOR


def field_ranges(texts: Sequence[str], offsets: Sequence[tuple[int, int]], width: int) -> np.ndarray:
    """(fields, 2) int16: the first token of each field and the one behind its last; equal where it has none.

    Args:
        texts: of the fields, of which `joined` makes the text.
        offsets: of each token of the text the half-open range of characters.
        width: tokens that are kept.
    """
    starts = np.array([start for start, _ in offsets], np.int64)
    ranges = np.zeros((len(texts), 2), np.int16)
    place = 0
    for number, text in enumerate(texts):
        if text:
            ranges[number] = np.minimum(np.searchsorted(starts, [place, place + len(text)]), width)
            place += len(text) + len(SEPARATOR)
    return ranges


def plausible_ranges(ranges: np.ndarray, num_tokens: np.ndarray) -> np.ndarray:
    """(n,) bool: whether (n, fields, 2) ranges can be those of texts of (n,) `num_tokens`: inside, none across another."""
    begins, ends = ranges[..., 0].astype(np.int64), ranges[..., 1].astype(np.int64)
    inside = (begins >= 0) & (begins <= ends) & (ends <= num_tokens[:, None])
    before = np.maximum.accumulate(np.where(begins < ends, ends, 0), axis=1)[:, :-1]
    apart = (begins[:, 1:] >= before) | (begins[:, 1:] == ends[:, 1:])
    return inside.all(axis=1) & apart.all(axis=1)
