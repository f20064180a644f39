"""What the next word is, with keys and values that are kept (SPEC 11).

A photograph's keys and values are computed once, and all beams read the same. A word's are kept; those of the [MASK] behind it,
which stands for the word to come, are dropped.

Shapes: B photographs, K patches, b beams, n = B b captions, t words so far, V words, A heads, D width of a head.
"""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from kaleido_fast.kernels.source import clean_source
from kaleido_fast.model.attention.prefix import prefix_rows
from kaleido_fast.model.captioning.settings import Objective
from kaleido_fast.model.encoder import EncoderLayer
from kaleido_fast.model.kaleido_bert import KaleidoBertModel


class CachedDecoder:
    """Captions of some photographs while they are written.

    Args:
        model: in eval mode.
        features: (B, K, F) clean features.
        beams: captions of a photograph.
        frame: ids of [CLS] and [MASK].
    """

    def __init__(
        self, model: KaleidoBertModel, features: Tensor, beams: int, frame: tuple[int, int], objective: Objective
    ) -> None:
        self._model, self._beams, self._mask_id, self._masked = model, beams, frame[1], objective == "masked"
        self._layers = [layer for layer in model.encoder.layers if isinstance(layer, EncoderLayer)]
        self._num_words = 0
        self._photographs = self._of_photographs(features, frame[0])
        count = len(features) * beams
        empty = [keys.new_empty(count, keys.shape[1], 0, keys.shape[3]) for keys, _ in self._photographs]
        self._words = [(keys, keys) for keys in empty]

    def next(self, words: Tensor, parents: Tensor) -> Tensor:
        """(n, V) fp32 log probabilities of the word behind `words`.

        Args:
            words: (n,) int64 the last word of each caption, [CLS] at first.
            parents: (n,) int64 which of the captions so far each one goes on.
        """
        embeddings, place = self._model.embeddings, self._num_words
        self._words = [(keys.index_select(0, parents), values.index_select(0, parents)) for keys, values in self._words]
        new = [embeddings.words(words, place)]
        if self._masked:
            new.append(embeddings.words(torch.full_like(words, self._mask_id), place + 1))
        x = torch.stack(new, dim=1)  # (n, s, H)
        for number, layer in enumerate(self._layers):
            x = self._through(layer, number, x)
        self._num_words += 1
        return self._model.amlm.logits(x[:, -1], self._model.word_table).float().log_softmax(-1)

    def _through(self, layer: EncoderLayer, number: int, x: Tensor) -> Tensor:
        """(n, s, H) -> (n, s, H); keeps the first new word's keys and values."""
        num_new = x.shape[1]
        query, key, value = _heads(layer, x)  # (n, A, s, D)
        (photo_keys, photo_values), (kept_keys, kept_values) = self._photographs[number], self._words[number]
        keys, values = torch.cat([kept_keys, key], dim=2), torch.cat([kept_values, value], dim=2)
        self._words[number] = keys[:, :, : self._num_words + 1], values[:, :, : self._num_words + 1]
        by_photograph = (len(photo_keys), self._beams)
        scale = query.shape[-1] ** -0.5
        over_photo = torch.einsum("bmasd,bakd->bmask", query.unflatten(0, by_photograph), photo_keys).flatten(0, 1)
        causal = torch.ones(num_new, keys.shape[2], dtype=torch.bool, device=x.device).tril(self._num_words)
        over_words = (query @ keys.transpose(2, 3)).masked_fill(~causal, float("-inf"))
        scores = torch.cat([over_photo, over_words], dim=-1) * scale
        weights = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(value.dtype)
        of_photo, of_words = weights.split([photo_keys.shape[2], keys.shape[2]], dim=-1)
        context = torch.einsum("bmask,bakd->bmasd", of_photo.unflatten(0, by_photograph), photo_values).flatten(0, 1)
        context = context + of_words @ values
        return layer.behind_attention(x, context.transpose(1, 2).reshape(x.shape))

    def _of_photographs(self, features: Tensor, cls_id: int) -> list[tuple[Tensor, Tensor]]:
        """(B, A, K, D) keys and values by layer."""
        model, (count, num_patches, _) = self._model, features.shape
        source = clean_source(count, model.kaleido.grids, 0, features.device).to(torch.int32)
        tokens = torch.full((count, 1), cls_id, dtype=torch.int32, device=features.device)
        packed, _ = model.embeddings(
            tokens, torch.ones_like(tokens[:, 0]), count + source.numel(), features, source, None, ())
        rows = prefix_rows([1] * count, num_patches, features.device)
        x = packed.index_select(0, rows.from_packed[: rows.num_rows]).unflatten(0, (count, num_patches))
        kept = []
        for layer in self._layers:
            query, key, value = _heads(layer, x)
            kept.append((key, value))
            context = scaled_dot_product_attention(query, key, value)
            x = layer.behind_attention(x, context.transpose(1, 2).reshape(x.shape))
        return kept


def _heads(layer: EncoderLayer, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(n, A, s, D) query, key and value of (n, s, H)."""
    heads = layer.settings.heads
    query, key, value = layer.query_key_value(x).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    return query, key, value
