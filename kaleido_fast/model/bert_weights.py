"""A Hugging Face BERT's weights into Kaleido-BERT's text side, encoder, pooler and word head."""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kaleido_fast.model.encoder import EncoderLayer
from kaleido_fast.model.kaleido_bert import KaleidoBertModel

WORDS, HEAD = "embeddings.word_embeddings.weight", "cls.predictions.bias"
POOLER, POOLER_BIAS = "pooler.dense.weight", "pooler.dense.bias"
TABLES = (WORDS, "embeddings.position_embeddings.weight", HEAD)  # may have more or fewer rows than ours
OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}  # of Google's first files


class LoadedBert(NamedTuple):
    """What `load_bert` took and what it left."""

    layers: int  # of the model, now the BERT's first ones
    bert_layers: int  # of the BERT
    random: tuple[str, ...]  # parts a BERT can fill and this one did not
    unused: tuple[str, ...]  # names of its tensors


def load_bert(model: KaleidoBertModel, weights: Mapping[str, Tensor]) -> LoadedBert:
    """Copy a BERT of equal width into the model.

    The model's first layers become the BERT's first ones; with fewer layers in the BERT the rest stay as they are.
    Segment row 0 and the embeddings' norm become every level's too, so that patches enter the layers at the scale these
    were trained for. Word head and pooler are copied where the BERT has them; a pooler whose biases are all 0 was never
    trained (sentence transformers leave theirs to weight decay) and counts as missing.

    Args:
        weights: a state dict, of BertModel ("encoder…") or with a head ("bert.encoder…", "cls…").
    Raises:
        ValueError: not a BERT, another width or too few words, incomplete, or tensors of other shapes.
    """
    plain = {_plain(name): value for name, value in weights.items()}
    if WORDS not in plain:
        raise ValueError(f"init.bert: no '{WORDS}' among the weights; expected a Hugging Face BERT's state dict")
    num_words, hidden = plain[WORDS].shape
    if hidden != model.settings.hidden:
        raise ValueError(f"init.bert: hidden width {hidden}, the model has {model.settings.hidden}; set model.hidden")
    if num_words < model.vocabulary.size:
        raise ValueError(f"init.bert: {num_words} words, the shards' vocabulary has {model.vocabulary.size}; prepare the "
                         "shards with its vocab.txt")
    bert_layers = _num_layers(plain)
    taken = min(bert_layers, model.settings.layers)
    used = set()
    pooler = POOLER in plain and (POOLER_BIAS not in plain or bool(plain[POOLER_BIAS].any()))
    with torch.no_grad():
        for target, names in _targets(model, taken, pooler=pooler, head=HEAD in plain):
            missing = [name for name in names if name not in plain]
            if missing:
                raise ValueError(f"init.bert: '{missing[0]}' is missing; the BERT's weights are not whole")
            source = torch.cat([plain[name] for name in names]) if len(names) > 1 else plain[names[0]]
            _copy(target, source, names[0])
            used.update(names)
        embeddings = model.embeddings
        embeddings.level_segment.copy_(embeddings.segment.expand_as(embeddings.level_segment))
        for norm in (embeddings.norm_weight, embeddings.norm_bias):
            norm[1:] = norm[0]
    random = [f"layer {number}" for number in range(taken + 1, model.settings.layers + 1)]
    random += ["pooler"] * (not pooler) + ["word head"] * (HEAD not in plain)
    return LoadedBert(taken, bert_layers, tuple(random), tuple(sorted(set(plain) - used)))


def _plain(name: str) -> str:
    """The name as BertModel has it."""
    name = name.removeprefix("bert.")
    for old, new in OLD_NAMES.items():
        name = name.replace(old, new)
    return name


def _num_layers(names: Mapping[str, Tensor]) -> int:
    matches = (re.match(r"encoder\.layer\.(\d+)\.", name) for name in names)
    return 1 + max((int(match[1]) for match in matches if match), default=-1)


def _targets(model: KaleidoBertModel, layers: int, *, pooler: bool, head: bool) -> Iterator[tuple[Tensor, list[str]]]:
    """Our tensors and the names whose values they take; query, key and value are one matrix of ours."""
    embeddings = model.embeddings
    yield embeddings.word.weight, [WORDS]
    yield embeddings.position, ["embeddings.position_embeddings.weight"]
    yield embeddings.segment, ["embeddings.token_type_embeddings.weight"]
    yield embeddings.norm_weight[0], ["embeddings.LayerNorm.weight"]
    yield embeddings.norm_bias[0], ["embeddings.LayerNorm.bias"]
    for number, layer in enumerate(model.encoder.layers[:layers]):
        assert isinstance(layer, EncoderLayer)
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
    if pooler:
        yield from _both(model.pooler, "pooler.dense")
    if head:
        yield from _both(model.amlm.dense, "cls.predictions.transform.dense")
        yield from _both(model.amlm.norm, "cls.predictions.transform.LayerNorm")
        yield model.amlm.bias, [HEAD]


def _both(module: nn.Module, name: str) -> Iterator[tuple[Tensor, list[str]]]:
    for kind in ("weight", "bias"):
        yield module.get_parameter(kind), [f"{name}.{kind}"]


def _copy(target: Tensor, source: Tensor, name: str) -> None:
    """Tables may be longer on one side (padded words, fewer places); of the segment table row 0 is ours."""
    if target.dim() == 1 and source.dim() == 2:
        source = source[0]
    rows = min(len(target), len(source))
    if target.shape[1:] != source.shape[1:] or (len(target) != len(source) and name not in TABLES):
        raise ValueError(f"init.bert: '{name}' is {tuple(source.shape)}, the model needs {tuple(target.shape)}")
    target[:rows].copy_(source[:rows])
