"""Photographs alone and texts alone through the encoder, clean (SPEC 10): first output rows, of which contrast's heads make
embeddings. What mining, evaluation and search embed products by."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kaleido_fast.model.contrast import Embeddings
from kaleido_fast.model.embeddings import FRAME
from kaleido_fast.model.kaleido_bert import KaleidoBertModel


class SingleSequences(NamedTuple):
    """B photographs and B texts, on the model's device; which of them go together does not matter."""

    features: Tensor  # (R, K, F) clean features of R photographs
    source: Tensor  # (B, K) int32 row of each position among the R * K
    tokens: Tensor  # (B, T) int32, [CLS] ... [SEP], then [PAD]
    lengths: Tensor  # (B,) int32 of these
    lengths_host: Sequence[int]  # the same on the host


def photograph_rows(model: KaleidoBertModel, features: Tensor, source: Tensor, frame: Tensor) -> Tensor:
    """(B, H) first output rows of photographs alone: [CLS] [SEP], then their K positions.

    Args:
        features: (R, K, F) clean; source: (B, K) int32 row of each position among the R * K.
        frame: (B, 2) int32 ids of [CLS] and [SEP].
    """
    return _first_rows(model, frame, torch.full_like(frame[:, 0], FRAME), [FRAME] * len(frame), features, source, None)


def text_rows(model: KaleidoBertModel, tokens: Tensor, lengths: Tensor, lengths_host: Sequence[int]) -> Tensor:
    """(B, H) first output rows of texts alone.

    Args:
        tokens: (B, T) int32, [CLS] ... [SEP], then [PAD]; lengths: (B,) int32 of these, lengths_host: the same on the host.
    """
    no_rows = model.embeddings.locations.new_zeros(0, 0, model.patch_encoder.num_features)
    return _first_rows(model, tokens, lengths, lengths_host, no_rows, tokens[:, :0], ())


def embed_alone(model: KaleidoBertModel, singles: SingleSequences) -> tuple[Embeddings, Tensor]:
    """Embeddings of length 1, fp32, and 1 / temperature (1,), of a model with contrast in eval mode."""
    assert model.contrast is not None
    tokens, lengths = singles.tokens, singles.lengths
    frame = torch.stack([tokens[:, 0], tokens.gather(1, lengths[:, None].long() - 1)[:, 0]], dim=1)
    return model.contrast(photograph_rows(model, singles.features, singles.source, frame),
                          text_rows(model, tokens, lengths, singles.lengths_host))


def _first_rows(
    model: KaleidoBertModel, tokens: Tensor, lengths: Tensor, lengths_host: Sequence[int], features: Tensor, source: Tensor,
    levels: Sequence[int] | None,
) -> Tensor:
    encoded = model.encode(tokens, lengths, lengths_host, features, source, levels=levels, tasks=())
    return encoded.sequence.index_select(0, encoded.cumulative[:-1])
