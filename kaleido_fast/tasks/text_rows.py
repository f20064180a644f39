"""Token ids of texts as users have them."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from kaleido_fast.data.shards.manifest import Vocabulary
from kaleido_fast.data.shards.token_rows import token_rows
from kaleido_fast.data.shards.tokenizer import Tokenizer


class TextRows(NamedTuple):
    """Token ids [CLS] words [SEP], then [PAD], cut to T."""

    tokens: np.ndarray  # (n, T) int32
    lengths: np.ndarray  # (n,) int32


def text_rows(texts: str | Sequence[str], tokenizer: Tokenizer, vocabulary: Vocabulary, max_tokens: int) -> TextRows:
    """Of one text or several.

    Raises:
        ValueError: not a text, or one that no file can hold.
    """
    if not isinstance(texts, str) and (isinstance(texts, bytes) or not isinstance(texts, Iterable)):
        raise ValueError(f"texts: expected a str or a list of them, found {type(texts).__name__}")
    texts = [texts] if isinstance(texts, str) else list(texts)
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"text {row}: expected a str, found {type(text).__name__}")
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise ValueError(f"text {row}: holds half of a surrogate pair; decode it with errors='replace'")
    encoded = [tokenizer.encode(text) for text in texts]
    num_words = np.array([len(ids) for ids in encoded], np.int64)
    words = np.zeros((len(texts), max(num_words, default=0)), np.int32)
    for row, ids in zip(words, encoded, strict=True):
        row[: len(ids)] = ids
    return TextRows(*token_rows(words, num_words, vocabulary, max_tokens))
