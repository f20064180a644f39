"""[CLS] words [SEP] [PAD], by hand."""

import numpy as np

from kaleido_fast.data.shards.manifest import Vocabulary
from kaleido_fast.data.shards.token_rows import token_rows

VOCABULARY = Vocabulary(
    size=20, padded_size=64, pad_id=0, unk_id=1, cls_id=2, sep_id=3, mask_id=4, ordinary_first=5, ordinary_last=19,
    fingerprint="")


def test_words_get_their_special_tokens() -> None:
    words = np.array([[7, 8, 9, 10], [11, 12, 99, 99], [99, 99, 99, 99]])
    tokens, lengths = token_rows(words, np.array([4, 2, 0]), VOCABULARY, 8)
    assert tokens.tolist() == [[2, 7, 8, 9, 10, 3, 0, 0], [2, 11, 12, 3, 0, 0, 0, 0], [2, 3, 0, 0, 0, 0, 0, 0]]
    assert lengths.tolist() == [6, 4, 2]
    assert (tokens.dtype, lengths.dtype) == (np.int32, np.int32)


def test_a_long_text_is_cut_to_t() -> None:
    tokens, lengths = token_rows(np.array([[7, 8, 9, 10]]), np.array([4]), VOCABULARY, 4)
    assert tokens.tolist() == [[2, 7, 8, 3]]
    assert lengths.tolist() == [4]


def test_no_texts_give_no_rows() -> None:
    tokens, lengths = token_rows(np.zeros((0, 0), np.int32), np.zeros(0, np.int64), VOCABULARY, 5)
    assert (tokens.shape, lengths.shape) == ((0, 5), (0,))
