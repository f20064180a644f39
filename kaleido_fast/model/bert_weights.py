"""A Hugging Face BERT's weights into Kaleido-BERT's text side, encoder, pooler and word head."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from kaleido_fast.model.kaleido_bert import KaleidoBert

WORDS = "embeddings.word_embeddings.weight"


def load_bert(model: KaleidoBert, weights: Mapping[str, Tensor]) -> list[str]:
    """Copy a BERT of equal width, with at least as many layers, into the model.

    Segment row 0 becomes every level's segment row too; the head is copied where the BERT has one.

    Args:
        weights: a state dict, of BertModel ("encoder…") or with a head ("bert.encoder…", "cls…").
    Returns:
        Names of `weights` that were not used.
    Raises:
        ValueError: not a BERT, another width or vocabulary, too few layers, or tensors of other shapes.
    """
    plain = {name.removeprefix("bert."): value for name, value in weights.items()}
    if WORDS not in plain:
        raise ValueError(f"init.bert: no '{WORDS}' among the weights; expected a Hugging Face BERT's state dict")
    num_words, hidden = plain[WORDS].shape
    if hidden != model.settings.hidden:
        raise ValueError(f"init.bert: hidden width {hidden}, the model has {model.settings.hidden}; set model.hidden")
    if num_words != model.vocabulary.size:
        raise ValueError(f"init.bert: {num_words} words, the shards' vocabulary has {model.vocabulary.size}; prepare the "
                         "shards with --vocab")
    used = set()
    with torch.no_grad():
        for target, names in _targets(model, with_head="cls.predictions.bias" in plain):
            missing = [name for name in names if name not in plain]
            if missing:
                raise ValueError(f"init.bert: '{missing[0]}' is missing; give a BERT of at least "
                                 f"{model.settings.layers} layers")
            source = torch.cat([plain[name] for name in names]) if len(names) > 1 else plain[names[0]]
            _copy(target, source, names[0])
            used.update(names)
        model.embeddings.level_segment.copy_(model.embeddings.segment.expand_as(model.embeddings.level_segment))
    return sorted(set(plain) - used)


def _targets(model: KaleidoBert, with_head: bool) -> Iterator[tuple[Tensor, list[str]]]:
    """Our tensors and the names whose values they take; query, key and value are one matrix of ours."""
    embeddings = model.embeddings
    yield embeddings.word.weight, [WORDS]
    yield embeddings.position, ["embeddings.position_embeddings.weight"]
    yield embeddings.segment, ["embeddings.token_type_embeddings.weight"]
    yield embeddings.norm_weight[0], ["embeddings.LayerNorm.weight"]
    yield embeddings.norm_bias[0], ["embeddings.LayerNorm.bias"]
    for number, layer in enumerate(model.encoder.layers):
        prefix = f"encoder.layer.{number}"
        attention = [f"{prefix}.attention.self.{part}" for part in ("query", "key", "value")]
        for kind in ("weight", "bias"):
            yield getattr(layer.query_key_value, kind), [f"{name}.{kind}" for name in attention]
        parts: list[tuple[nn.Module, str]] = [
            (layer.attention_output, "attention.output.dense"), (layer.attention_norm, "attention.output.LayerNorm"),
            (layer.intermediate, "intermediate.dense"), (layer.output, "output.dense"),
            (layer.output_norm, "output.LayerNorm"),
        ]
        for module, name in parts:
            yield from _both(module, f"{prefix}.{name}")
    yield from _both(model.pooler, "pooler.dense")
    if with_head:
        yield from _both(model.amlm.dense, "cls.predictions.transform.dense")
        yield from _both(model.amlm.norm, "cls.predictions.transform.LayerNorm")
        yield model.amlm.bias, ["cls.predictions.bias"]


def _both(module: nn.Module, name: str) -> Iterator[tuple[Tensor, list[str]]]:
    yield module.weight, [f"{name}.weight"]
    yield module.bias, [f"{name}.bias"]


def _copy(target: Tensor, source: Tensor, name: str) -> None:
    """Tables may be longer on one side (padded words, fewer places); of the segment table row 0 is ours."""
    if target.dim() == 1 and source.dim() == 2:
        source = source[0]
    rows = min(len(target), len(source))
    is_table = "embeddings.word" in name or "embeddings.position" in name
    if target.shape[1:] != source.shape[1:] or (len(target) != len(source) and not is_table):
        raise ValueError(f"init.bert: '{name}' is {tuple(source.shape)}, the model needs {tuple(target.shape)}")
    target[:rows].copy_(source[:rows])
