"""Text and patch embeddings, padded: every sample is T tokens, then its K positions (SPEC 7)."""

import torch
from torch import Tensor, nn

from kaleido_fast.kernels.geometry import level_offsets, locations
from kaleido_fast.model.settings import KaleidoSettings, ModelSettings
from kaleido_fast.reference.encoder import RoundedLayerNorm


class TextEmbedding(nn.Module):
    """LN(word + position + segment 0)."""

    def __init__(self, settings: ModelSettings, num_words: int) -> None:
        super().__init__()
        self.word = nn.Embedding(num_words, settings.hidden)
        self.position = nn.Embedding(settings.max_positions, settings.hidden)
        self.segment = nn.Parameter(torch.empty(settings.hidden))
        self.norm = RoundedLayerNorm(settings.hidden, eps=settings.layer_norm_eps)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, H)."""
        place = torch.arange(tokens.shape[1], device=tokens.device)
        return self.dropout(self.norm(self.word(tokens) + self.position(place) + self.segment))


class LevelEmbedding(nn.Module):
    """LN(features P + segment + located): P, segment and norm are the level's own."""

    def __init__(self, settings: ModelSettings, num_features: int) -> None:
        super().__init__()
        self.projection = nn.Linear(num_features, settings.hidden, bias=False)
        self.segment = nn.Parameter(torch.empty(settings.hidden))
        self.norm = RoundedLayerNorm(settings.hidden, eps=settings.layer_norm_eps)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, features: Tensor, located: Tensor) -> Tensor:
        """(B, n*n, F) features and projected locations, (n*n, H) or (B, n*n, H) -> (B, n*n, H)."""
        projected = self.projection(self.dropout(features))
        return self.dropout(self.norm(projected + self.segment + located))


class Embeddings(nn.Module):
    """The text's embedding and one a level, side by side."""

    def __init__(
        self, settings: ModelSettings, kaleido: KaleidoSettings, num_words: int, num_features: int, image_size: int
    ) -> None:
        super().__init__()
        self.grids = kaleido.grids
        self.text = TextEmbedding(settings, num_words)
        self.levels = nn.ModuleList(LevelEmbedding(settings, num_features) for _ in kaleido.grids)
        self.location = nn.Linear(5, settings.hidden, bias=False)  # shared by all levels
        unit = locations(kaleido.grids)
        pixels = (unit * torch.tensor([image_size] * 4 + [image_size**2])).round()
        self.register_buffer("locations", unit if settings.locations == "unit" else pixels, persistent=False)

    def forward(self, tokens: Tensor, features: Tensor, located: Tensor | None = None) -> Tensor:
        """(B, T + K, H).

        Args:
            tokens: (B, T).
            features: (B, K, F), what each position shows; zeros where it is blank.
            located: (B, K, 5) locations where they are the samples' own; those of the grids by default.
        """
        dtype = self.location.weight.dtype
        place = self.location((self.locations if located is None else located).to(dtype))
        features = features.to(dtype)
        parts = [self.text(tokens)]
        for level, grid, first in zip(self.levels, self.grids, level_offsets(self.grids), strict=True):
            cells = slice(first, first + grid * grid)
            parts.append(level(features[:, cells], place[..., cells, :]))
        return torch.cat(parts, dim=1)
