"""Captions of photographs: by word with a beam, or all words at once (SPEC 11)."""

from typing import NamedTuple

import torch
from torch import Tensor

from kaleido_fast.model.captioning.beam import beam_search
from kaleido_fast.model.captioning.cached_decoder import CachedDecoder
from kaleido_fast.model.captioning.prefix_encoder import encode_words
from kaleido_fast.model.captioning.settings import CaptionSettings
from kaleido_fast.model.kaleido_bert import KaleidoBertModel


class CaptionWords(NamedTuple):
    """Ids of the vocabulary that captions are made of."""

    cls_id: int
    sep_id: int
    mask_id: int
    ordinary_first: int  # inclusive
    ordinary_last: int


def check_length(model: KaleidoBertModel, settings: CaptionSettings) -> None:
    """Refuse captions that the model has no positions for (ValueError)."""
    most = model.settings.max_positions - 2
    if settings.max_tokens > most:
        raise ValueError(f"caption.max_tokens={settings.max_tokens}: the model has positions for {most} word pieces between "
                         f"[CLS] and [SEP]; set caption.max_tokens={most} or less")


@torch.no_grad()
def write_captions(
    model: KaleidoBertModel, features: Tensor, words: CaptionWords, settings: CaptionSettings
) -> list[list[int]]:
    """Ids of the words of a caption of each photograph.

    Args:
        model: in eval mode.
        features: (B, K, F) clean features of the photographs, on the model's device.
    Raises:
        ValueError: captions longer than the model has positions for.
    """
    check_length(model, settings)
    if not len(features):
        return []
    allowed = torch.zeros(model.vocabulary.size, dtype=torch.bool, device=features.device)
    allowed[words.ordinary_first : words.ordinary_last + 1] = True
    if settings.style == "at_once":
        return _at_once(model, features, words, allowed, settings.max_tokens)
    decoder = CachedDecoder(model, features, settings.beam, (words.cls_id, words.mask_id), settings.objective)
    return beam_search(decoder.next, len(features), beams=settings.beam, start=words.cls_id, end=words.sep_id,
                       allowed=allowed, most=settings.max_tokens, penalty=settings.length_penalty)


def _at_once(
    model: KaleidoBertModel, features: Tensor, words: CaptionWords, allowed: Tensor, most: int
) -> list[list[int]]:
    """The likeliest word of each place where all are masked, up to the first [SEP]."""
    tokens = torch.full((len(features), most + 1), words.mask_id, dtype=torch.int32, device=features.device)
    tokens[:, 0] = words.cls_id
    lengths = torch.full_like(tokens[:, 0], most + 1)
    outputs = encode_words(model, tokens, lengths, [most + 1] * len(features), features)
    logits = model.amlm.logits(outputs, model.word_table).unflatten(0, tokens.shape)[:, 1:].clone()
    may = allowed.clone()
    may[words.sep_id] = True
    captions = logits.masked_fill(~may, float("-inf")).argmax(-1).tolist()
    return [caption[: caption.index(words.sep_id)] if words.sep_id in caption else caption for caption in captions]
