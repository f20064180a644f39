"""Photographs alone and texts alone, clean, as the engine takes them (SPEC 10)."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from kaleido_fast.data.batches.batch import Batch
from kaleido_fast.model.contrast import Embeddings
from kaleido_fast.model.kaleido_bert import KaleidoBertModel


@dataclass(frozen=True, slots=True)
class SingleSequences:
    """The B photographs of a batch, and B texts beside them."""

    batch: Batch
    tokens: Tensor  # (B, T) int32, [CLS] ... [SEP], then [PAD]
    lengths: Tensor  # (B,) int32 of these
    lengths_host: Sequence[int]  # the same on the host
    empty_text: tuple[int, int]  # ids of [CLS] and [SEP]

    def embed(self, model: KaleidoBertModel) -> Embeddings:
        """Embeddings of all of them by a model with contrast."""
        features = self.batch.clean_features(model, model.kaleido.grids, len(self.lengths))
        return Embeddings(model.embed_photographs(features, self.empty_text),
                          model.embed_texts(self.tokens, self.lengths, self.lengths_host))
