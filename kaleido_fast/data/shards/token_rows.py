"""Token ids as the model takes them: [CLS] words [SEP], then [PAD], cut to T (SPEC 4)."""

import numpy as np

from kaleido_fast.data.shards.manifest import Vocabulary


def token_rows(
    words: np.ndarray, num_words: np.ndarray, vocabulary: Vocabulary, max_tokens: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of T tokens, from words without special ones.

    Args:
        words: (n, W) ids; what stands behind a row's own words is not read.
        num_words: (n,) words of each row, at most W.
        max_tokens: T.
    Returns:
        tokens (n, T) int32 and lengths (n,) int32, [CLS] and [SEP] included.
    """
    kept = np.minimum(num_words, max_tokens - 2)
    width = min(words.shape[1], max_tokens - 2)
    tokens = np.full((len(words), max_tokens), vocabulary.pad_id, np.int32)
    tokens[:, 0] = vocabulary.cls_id
    tokens[:, 1 : width + 1] = np.where(np.arange(width) < kept[:, None], words[:, :width], vocabulary.pad_id)
    tokens[np.arange(len(words)), kept + 1] = vocabulary.sep_id
    return tokens, (kept + 2).astype(np.int32)
