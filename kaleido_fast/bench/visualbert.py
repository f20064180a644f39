"""Hugging Face's VisualBERT of the same shape in the place of our embeddings and encoder, under our heads and losses.

One projection for the patches of all levels, texts padded to T, attention as that library has it. The heads read the rows
that they need of it, as ours do (the library's own pre-training class decodes every row).
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from transformers import VisualBertConfig, VisualBertModel

from kaleido_fast.kernels.tasks import TaskRule
from kaleido_fast.model.embeddings import Alone
from kaleido_fast.model.kaleido_bert import Encoded, KaleidoBertModel
from kaleido_fast.model.settings import KaleidoSettings, ModelSettings, VocabularySettings
from kaleido_fast.reference.kaleido_bert import shown


class VisualBert(KaleidoBertModel):
    """What training.step.PretrainStep trains, with another body."""

    def __init__(
        self, settings: ModelSettings, kaleido: KaleidoSettings, vocabulary: VocabularySettings, image_size: int = 240
    ) -> None:
        super().__init__(settings, kaleido, vocabulary, image_size)
        del self.embeddings, self.encoder, self.pooler
        self.bert = VisualBertModel(VisualBertConfig(
            vocab_size=vocabulary.padded_size, hidden_size=settings.hidden, num_hidden_layers=settings.layers,
            num_attention_heads=settings.heads, intermediate_size=settings.intermediate,
            hidden_act="gelu_pytorch_tanh" if settings.activation == "gelu_tanh" else "gelu",
            hidden_dropout_prob=settings.dropout, attention_probs_dropout_prob=settings.attention_dropout,
            max_position_embeddings=settings.max_positions, layer_norm_eps=settings.layer_norm_eps,
            initializer_range=settings.initializer_range, pad_token_id=0,
            visual_embedding_dim=self.patch_encoder.num_features))

    @property
    def word_table(self) -> Tensor:
        return self.bert.embeddings.word_embeddings.weight

    def encode(
        self, tokens: Tensor, lengths: Tensor, lengths_host: Iterable[int], features: Tensor, source: Tensor,
        dropout_key: Tensor | None = None, levels: Sequence[int] | None = None, locations: Tensor | None = None,
        tasks: Sequence[TaskRule] | None = None, alone: Alone | None = None,
    ) -> Encoded:
        """As KaleidoBertModel's, of all levels; every sample has T rows of text, and the heads count from there.

        Raises:
            ValueError: photographs and texts alone are asked for, which this body has no contrast for.
        """
        if alone is not None:
            raise ValueError("bench: VisualBERT has no contrast; leave itc out of train.task_weights to compare with it")
        samples, width = tokens.shape
        text = torch.arange(width, device=tokens.device) < lengths[:, None]
        outputs = self.bert(input_ids=tokens, attention_mask=text.long(), visual_embeds=shown(features, source),
                          visual_attention_mask=text.new_ones(source.shape).long())
        each = width + source.shape[1]
        cumulative = torch.arange(samples + 1, dtype=torch.int32, device=tokens.device) * each
        return Encoded(
            outputs.last_hidden_state.flatten(0, 1), cumulative, torch.full_like(lengths, width), outputs.pooler_output)
