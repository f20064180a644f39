"""The masks of captions, worked out by hand."""

import numpy as np

from kaleido_fast.finetune.captioning.masks import masked_targets, next_targets

CLS, SEP, PAD, MASK = 1, 2, 0, 3
TOKENS = np.array([[CLS, 10, 11, 12, SEP, PAD], [CLS, 20, 21, 22, 23, SEP], [CLS, 30, SEP, PAD, PAD, PAD]], np.int32)
LENGTHS = np.array([5, 6, 3], np.int32)
CUT = np.array([False, True, False])


def words() -> np.ndarray:
    """Priorities by hand; [MASK] but where a place says otherwise."""
    drawn = np.zeros((4, 3, 6), np.int64)
    drawn[0] = [[99, 5, 7, 7, 1, 98], [99, 1, 8, 6, 7, 9], [99, 3, 4, 98, 98, 98]]
    drawn[1, 0, 2] = int(0.85 * 2**32)  # another word
    drawn[1, 1, 3] = int(0.95 * 2**32)  # the word itself
    drawn[2, 0, 2] = int(0.5 * 2**32)  # of 10 ordinary ids the sixth
    return drawn


def test_masked() -> None:
    """Of 4 places floor(0.7 * 4 + 1/2) = 3: 2 and 3 (7 each), 1. Of 5 places 4: [SEP], which is none, 2, 4, 3.
    Of 2 one: [SEP]."""
    targets = masked_targets(TOKENS, LENGTHS, CUT, words(), 0.7, mask_id=MASK, ordinary=(40, 49))
    assert targets.labels.tolist() == [
        [-100, 10, 11, 12, -100, -100], [-100, -100, 21, 22, 23, -100], [-100, -100, SEP, -100, -100, -100]]
    assert targets.tokens.tolist() == [
        [CLS, MASK, 45, MASK, SEP, PAD], [CLS, 20, MASK, 22, MASK, SEP], [CLS, 30, MASK, PAD, PAD, PAD]]


def test_at_least_one_is_masked() -> None:
    targets = masked_targets(TOKENS, LENGTHS, CUT & False, words(), 0.0, mask_id=MASK, ordinary=(40, 49))
    assert (targets.labels != -100).nonzero()[1].tolist() == [2, 5, 2]  # of equal priorities the earlier place


def test_next() -> None:
    targets = next_targets(TOKENS, LENGTHS, CUT)
    assert targets.tokens is TOKENS
    assert targets.labels.tolist() == [[10, 11, 12, SEP, -100, -100], [20, 21, 22, 23, -100, -100], [30, SEP] + [-100] * 4]
