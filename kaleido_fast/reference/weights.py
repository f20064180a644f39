"""The plain path's names for the fast path's tensors: weights one way, weights and gradients back.

    embeddings.word.weight, .position, .segment     embeddings.text.word.weight, .text.position.weight, .text.segment
    embeddings.norm_weight, .norm_bias  (1 + L, H)  embeddings.text.norm, then embeddings.levels.0.norm, …: a row each
    embeddings.level_segment  (L, H)                embeddings.levels.0.segment, …: a row each
    embeddings.projections.0.weight, …              embeddings.levels.0.projection.weight, …
    …query_key_value  (3 H, …)                      ….attention.query, .key, .value: a third each
    …attention_output                               ….attention.output
    kaleido_heads.<task>.classify                   kaleido_heads.<task>

Everything else has the same name.
"""

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

TEXT = {"embeddings.word.weight": "embeddings.text.word.weight", "embeddings.position": "embeddings.text.position.weight",
        "embeddings.segment": "embeddings.text.segment"}
NORMS, SEGMENTS = ("embeddings.norm_weight", "embeddings.norm_bias"), "embeddings.level_segment"


def from_fast(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of KaleidoBertModel, or gradients by its names, under the plain path's names."""
    num_levels = len(tensors["embeddings.level_segment"])
    taken: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        pieces = tensor.unbind() if _is_rows(name) else tensor.chunk(3) if _is_thirds(name) else [tensor]
        taken |= dict(zip(parts_of(name, num_levels), pieces, strict=True))
    return taken


def to_fast(tensors: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """The tensors that KaleidoBertModel calls `names`, from those of the plain path."""
    num_levels = sum(name.endswith(".projection.weight") and ".levels." in name for name in tensors)
    joined = {}
    for name in names:
        pieces = [tensors[part] for part in parts_of(name, num_levels)]
        joined[name] = torch.stack(pieces) if _is_rows(name) else torch.cat(pieces) if _is_thirds(name) else pieces[0]
    return joined


def parts_of(name: str, num_levels: int) -> list[str]:
    """The plain path's names of what the fast path calls `name`."""
    levels = [f"embeddings.levels.{level}" for level in range(num_levels)]
    if name in TEXT:
        return [TEXT[name]]
    if name in NORMS:
        return [f"{owner}.norm.{name.removeprefix('embeddings.norm_')}" for owner in ("embeddings.text", *levels)]
    if name == SEGMENTS:
        return [f"{owner}.segment" for owner in levels]
    if _is_thirds(name):
        return [name.replace("query_key_value", f"attention.{part}") for part in ("query", "key", "value")]
    name = re.sub(r"^embeddings\.projections\.(\d+)", r"embeddings.levels.\1.projection", name)
    return [name.replace(".attention_output.", ".attention.output.").replace(".classify.", ".")]


def _is_rows(name: str) -> bool:
    """A table whose rows are tensors of their own on the plain path."""
    return name in NORMS or name == SEGMENTS


def _is_thirds(name: str) -> bool:
    """Query, key and value under each other."""
    return ".query_key_value." in name
