"""The model as other programs read it: padded, for inference, in torch alone; names of tensors as in KaleidoBertModel.

It stands in the exported modelling file (one_file.py) and is what becomes ONNX. All that it computes with is in the state dict:
constants of the grids, the cells' resize as products with matrices, and what a patch encoder derives.

Shapes: B samples, T tokens, K positions, S side of the square, P of a patch, H hidden, E embedding.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, normalize

NORM_EPS = 1e-12


class TowerEmbeddings(nn.Module):
    """Rows of words and of patches, each normed by its own level."""

    locations: Tensor  # (K, 5)

    def __init__(self, sizes: Mapping[str, Any], num_features: int) -> None:
        super().__init__()
        hidden, grids = sizes["hidden"], sizes["grids"]
        positions = sum(grid * grid for grid in grids)
        self.grids = tuple(grids)
        self.word = nn.Embedding(sizes["num_words"], hidden)
        self.position = nn.Parameter(torch.zeros(sizes["max_positions"], hidden))
        self.segment = nn.Parameter(torch.zeros(hidden))
        self.level_segment = nn.Parameter(torch.zeros(len(grids), hidden))
        self.projections = nn.ModuleList(nn.Linear(num_features, hidden, bias=False) for _ in grids)
        self.location = nn.Linear(5, hidden, bias=False)
        self.norm_weight = nn.Parameter(torch.ones(1 + len(grids), hidden))
        self.norm_bias = nn.Parameter(torch.zeros(1 + len(grids), hidden))
        self.register_buffer("locations", torch.zeros(positions, 5))

    def words(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, H)."""
        x = self.word(tokens) + self.position[: tokens.shape[1]] + self.segment
        return layer_norm(x, x.shape[-1:], self.norm_weight[0], self.norm_bias[0], NORM_EPS)

    def patches(self, features: Tensor) -> Tensor:
        """(B, K, F) -> (B, K, H)."""
        counts = [grid * grid for grid in self.grids]
        levels = []
        for level, (part, place) in enumerate(zip(features.split(counts, 1), self.locations.split(counts), strict=True)):
            x = self.projections[level](part) + self.level_segment[level] + self.location(place)
            levels.append(layer_norm(x, x.shape[-1:], self.norm_weight[1 + level], self.norm_bias[1 + level], NORM_EPS))
        return torch.cat(levels, 1)


class TowerLayer(nn.Module):
    """BERT's layer, norms behind the sums."""

    def __init__(self, sizes: Mapping[str, Any]) -> None:
        super().__init__()
        hidden = sizes["hidden"]
        self.heads, self.approximate = sizes["heads"], "tanh" if sizes["activation"] == "gelu_tanh" else "none"
        self.query_key_value = nn.Linear(hidden, 3 * hidden)
        self.attention_output = nn.Linear(hidden, hidden)
        self.attention_norm = nn.LayerNorm(hidden, eps=NORM_EPS)
        self.intermediate = nn.Linear(hidden, sizes["intermediate"])
        self.output = nn.Linear(sizes["intermediate"], hidden)
        self.output_norm = nn.LayerNorm(hidden, eps=NORM_EPS)

    def forward(self, x: Tensor, is_row: Tensor) -> Tensor:
        """(B, L, H) -> (B, L, H); is_row: (B, L) bool, false where a row is padding."""
        query, key, value = self.query_key_value(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        weights = scores.masked_fill(~is_row[:, None, None], torch.finfo(scores.dtype).min).softmax(-1)
        context = (weights @ value).transpose(1, 2).flatten(2)
        x = self.attention_norm(self.attention_output(context) + x)
        return self.output_norm(self.output(gelu(self.intermediate(x), approximate=self.approximate)) + x)


class TowerStack(nn.Module):
    """The layers."""

    def __init__(self, sizes: Mapping[str, Any]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TowerLayer(sizes) for _ in range(sizes["layers"]))


class TowerHeads(nn.Module):
    """The maps to embeddings, and the logarithm of 1 / temperature."""

    def __init__(self, hidden: int, size: int) -> None:
        super().__init__()
        self.photograph = nn.Linear(hidden, size, bias=False)
        self.text = nn.Linear(hidden, size, bias=False)
        self.log_scale = nn.Parameter(torch.zeros(1))


class KaleidoTowers(nn.Module):
    """Embeddings of photographs and of texts, and the match of pairs."""

    pixel_scale: Tensor  # (3,), and the shift
    pixel_shift: Tensor

    def __init__(self, sizes: Mapping[str, Any], patch_encoder: nn.Module) -> None:
        """`sizes` as `tower_sizes` in huggingface.py gives them; `patch_encoder`: (R, 3, P, P) -> (R, F)."""
        super().__init__()
        self.empty_text = tuple(sizes["empty_text"])  # ids of [CLS] and [SEP]
        self.patch_encoder = patch_encoder
        for part in patch_encoder.modules():
            part._non_persistent_buffers_set.clear()  # what is not in the file would not be read from it
        self.embeddings = TowerEmbeddings(sizes, int(patch_encoder.num_features))  # type: ignore[arg-type]
        self.encoder = TowerStack(sizes)
        self.pooler = nn.Linear(sizes["hidden"], sizes["hidden"])
        self.itm = nn.Linear(sizes["hidden"], 2)
        self.contrast = TowerHeads(sizes["hidden"], sizes["itc_dim"])
        for grid in sizes["grids"]:  # P x S/grid: rows of the triangle filter
            self.register_buffer(f"cell_filter_{grid}", torch.zeros(sizes["patch_size"], sizes["image_size"] // grid))
        self.register_buffer("pixel_scale", torch.ones(3))
        self.register_buffer("pixel_shift", torch.zeros(3))

    def features(self, squares: Tensor) -> Tensor:
        """(B, S, S, 3) uint8 -> (B, K, F): each cell of each level resized on its own, normalised and encoded."""
        planes = squares.permute(0, 3, 1, 2).to(self.pixel_scale.dtype)
        encode = getattr(self.patch_encoder, "encode", self.patch_encoder)  # a frozen one's, without its autocast
        levels = []
        for grid in self.embeddings.grids:
            filters = getattr(self, f"cell_filter_{grid}")
            side = filters.shape[1]
            cells = planes.unflatten(3, (grid, side)).unflatten(2, (grid, side)).permute(0, 2, 4, 1, 3, 5)
            levels.append((filters @ cells @ filters.T).flatten(1, 2))
        patches = torch.cat(levels, 1) * self.pixel_scale[:, None, None] + self.pixel_shift[:, None, None]
        return encode(patches.flatten(0, 1)).unflatten(0, (-1, patches.shape[1]))

    def photographs(self, squares: Tensor) -> Tensor:
        """(B, S, S, 3) uint8 -> (B, E) of length 1."""
        patches = self.embeddings.patches(self.features(squares))
        words = self.embeddings.words(torch.tensor([self.empty_text], device=squares.device)).expand(patches.shape[0], -1, -1)
        x = torch.cat([words, patches], 1)
        return normalize(self.contrast.photograph(self._run(x, torch.ones_like(x[:, :, 0], dtype=torch.bool))[:, 0]))

    def texts(self, tokens: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, T) ids and 1 where a token stands -> (B, E) of length 1."""
        return normalize(self.contrast.text(self._run(self.embeddings.words(tokens), attention_mask > 0)[:, 0]))

    def pairs(self, tokens: Tensor, attention_mask: Tensor, squares: Tensor) -> tuple[Tensor, Tensor]:
        """Each text with its photograph: (B, H) pooled outputs and (B, 2) logits of mismatch and match."""
        patches = self.embeddings.patches(self.features(squares))
        x = torch.cat([self.embeddings.words(tokens), patches], 1)
        is_row = torch.cat([attention_mask > 0, torch.ones_like(patches[:, :, 0], dtype=torch.bool)], 1)
        pooled = torch.tanh(self.pooler(self._run(x, is_row)[:, 0]))
        return pooled, self.itm(pooled)

    def _run(self, x: Tensor, is_row: Tensor) -> Tensor:
        for layer in self.encoder.layers:
            x = layer(x, is_row)
        return x
