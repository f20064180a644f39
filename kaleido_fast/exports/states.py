"""What the towers are built from: sizes and tensors of a trained model, and what cannot be exported."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from kaleido_fast.data.shards.tokenizer import Tokenizer
from kaleido_fast.exports.towers import KaleidoTowers
from kaleido_fast.kernels.cut_filter import normalisation
from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from kaleido_fast.model.patch_encoders.build import build_patch_encoder
from kaleido_fast.model.pretrained import Pretrained

CHECKED = 4  # pairs that an export is compared on
# Heads of pre-training, which no tower has.
LEFT_OUT = ("amlm.", "kaleido_heads.", "classifier.", "embeddings.levels", "embeddings.text_stream")


@dataclass(frozen=True, slots=True)
class Pairs:
    """Drawn inputs, and what our model makes of them."""

    tokens: Tensor  # (n, T) int64, [PAD] behind
    attention_mask: Tensor  # (n, T) int64
    squares: Tensor  # (n, S, S, 3) uint8
    photographs: Tensor  # (n, E)
    texts: Tensor  # (n, E)
    itm: Tensor  # (n, 2)


def require_exportable(pretrained: Pretrained) -> Tokenizer:
    """Refuse (ValueError) a model without what an export is for; its vocabulary."""
    model = pretrained.model
    if model.contrast is None:
        raise ValueError("export: this model was trained without contrast, so it has no embeddings of photographs and texts; "
                         "train with model.itc_dim=128 train.task_weights.itc=2")
    if not model.patch_encoder.makes_features:
        raise ValueError(f"export: this model has no patch encoder (model.patch_encoder={model.patch_encoder.name}), so it "
                         "reads no photographs; train one with another, such as dct")
    if pretrained.tokenizer is None or pretrained.tokenizer.ids_alone:
        raise ValueError("export: this model came without the words of its vocabulary, so it reads no texts; import it again "
                         "with its vocab.txt")
    return pretrained.tokenizer


def tower_sizes(pretrained: Pretrained) -> dict[str, Any]:
    """What KaleidoTowers is built with, as plain JSON values."""
    model, vocabulary = pretrained.model, require_exportable(pretrained).vocabulary()
    settings, kaleido = model.settings, model.kaleido
    return {
        "hidden": settings.hidden, "layers": settings.layers, "heads": settings.heads, "intermediate": settings.intermediate,
        "activation": settings.activation, "max_positions": settings.max_positions, "itc_dim": settings.itc_dim,
        "num_words": model.vocabulary.padded_size, "empty_text": [vocabulary.cls_id, vocabulary.sep_id],
        "grids": list(kaleido.grids), "patch_size": kaleido.patch_size, "image_size": model.image_size,
    }


def patch_encoder_arguments(model: KaleidoBertModel) -> dict[str, Any]:
    """What the class of its patch encoder is called with."""
    kaleido, encoder = model.kaleido, model.patch_encoder
    width = {"num_features": encoder.num_features} if encoder.takes_width else {}
    return {"patch_size": kaleido.patch_size, "mean": list(kaleido.mean), "std": list(kaleido.std), **width}


def tower_state(model: KaleidoBertModel) -> dict[str, Tensor]:
    """The towers' state dict: our tensors, and the constants that others cannot compute."""
    state = {name: value for name, value in model.state_dict().items() if not name.startswith(LEFT_OUT)}
    state |= {f"patch_encoder.{name}": value for name, value in model.patch_encoder.named_buffers()}
    state["embeddings.locations"] = model.embeddings.locations
    size = model.kaleido.patch_size
    for grid in model.kaleido.grids:
        side = model.image_size // grid
        pixels = torch.eye(side, dtype=torch.float64)[None, None]
        filters = interpolate(pixels, size=(size, side), mode="bilinear", antialias=True, align_corners=False)
        state[f"cell_filter_{grid}"] = filters[0, 0]
    state["pixel_scale"], state["pixel_shift"] = normalisation(model.kaleido.mean, model.kaleido.std)
    # contiguous copies: safetensors refuses tensors that share memory
    return {name: value.detach().float().clone(memory_format=torch.contiguous_format) for name, value in state.items()}


def towers_of(pretrained: Pretrained) -> KaleidoTowers:
    """The towers with the model's weights, in evaluation mode."""
    model = pretrained.model
    towers = KaleidoTowers(tower_sizes(pretrained), build_patch_encoder(model.settings, model.kaleido))
    towers.load_state_dict(tower_state(model))
    return towers.eval()


@torch.no_grad()
def drawn_pairs(pretrained: Pretrained, count: int = CHECKED) -> Pairs:
    """Texts of drawn words in every length and noise of every coarseness, through our own model."""
    model, vocabulary = pretrained.model, require_exportable(pretrained).vocabulary()
    generator = torch.Generator().manual_seed(0)
    most = pretrained.preprocessing.max_tokens
    lengths = torch.linspace(3, most, count).long()
    words = torch.randint(vocabulary.ordinary_first, vocabulary.ordinary_last + 1, (count, most), generator=generator)
    place = torch.arange(most)
    tokens = torch.where(place < lengths[:, None] - 1, words, vocabulary.pad_id)
    tokens[:, 0] = vocabulary.cls_id
    tokens[torch.arange(count), lengths - 1] = vocabulary.sep_id
    side = model.image_size
    coarse = [torch.rand(1, 3, side // step or 1, side // step or 1, generator=generator) for step in (1, 3, 10, 30)]
    noise = torch.cat([interpolate(coarse[number % 4], size=(side, side)) for number in range(count)])
    squares = (noise.permute(0, 2, 3, 1) * 255).round().to(torch.uint8)
    empty = torch.zeros(count, 0, dtype=torch.int32)
    features = model.patch_encoder(model.patches(squares, empty, empty, ())).unflatten(0, (count, -1))
    source = torch.arange(math.prod(features.shape[:2]), dtype=torch.int32).view(features.shape[:2])
    ids, short = tokens.to(torch.int32), lengths.to(torch.int32)
    joint = model.encode(ids, short, lengths.tolist(), features, source, tasks=())
    return Pairs(
        tokens, (place < lengths[:, None]).long(), squares,
        model.embed_photographs(features, (vocabulary.cls_id, vocabulary.sep_id)),
        model.embed_texts(ids, short, lengths.tolist()), model.itm_logits(joint.pooled))
