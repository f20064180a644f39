"""The model under the prefix mask: outputs of all words in one pass (SPEC 11)."""

from collections.abc import Sequence

from torch import Tensor

from kaleido_fast.kernels.source import clean_source
from kaleido_fast.model.attention.prefix import prefix_rows
from kaleido_fast.model.kaleido_bert import KaleidoBertModel


def encode_words(
    model: KaleidoBertModel, tokens: Tensor, lengths: Tensor, lengths_host: Sequence[int], features: Tensor,
    dropout_key: Tensor | None = None,
) -> Tensor:
    """(W, H) outputs of the words of all samples, each from its photograph and the words up to it.

    Args:
        tokens: (B, T) int32; lengths: (B,) int32, lengths_host: the same on the host; W is their sum.
        features: (B, K, F) clean features of the photographs.
        dropout_key: (3,) int64, needed in training with dropout.
    """
    num_patches, lengths_list = features.shape[1], [int(length) for length in lengths_host]
    source = clean_source(len(features), model.kaleido.grids, 0, features.device).to(lengths.dtype)
    packed, _ = model.embeddings(
        tokens, lengths, sum(lengths_list) + source.numel(), features, source, dropout_key, ())
    rows = prefix_rows(lengths_list, num_patches, features.device)
    return model.encoder.under_prefix(packed, rows)[rows.num_rows:]
