"""Text and patch embeddings (SPEC 7): tables, projections and norms around the operation `embed`."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, layer_norm

from kaleido_fast.kernels.embed import embed
from kaleido_fast.kernels.embed_inputs import EPS
from kaleido_fast.kernels.geometry import locations, position_levels
from kaleido_fast.kernels.source import photograph_source
from kaleido_fast.kernels.tasks import TaskRule, total_greyed
from kaleido_fast.model.precision import product_dtype
from kaleido_fast.model.settings import KaleidoSettings, ModelSettings

LOCATION_SIZE = 5  # x1, x2, y1, y2, w*h
FRAME = 2  # tokens of a photograph alone: [CLS] [SEP]
TEXT_STREAM = 32768  # added to the dropout stream of texts alone (SPEC 10)


class Alone(NamedTuple):
    """The photographs and texts that follow the joint sequences, each alone (SPEC 10)."""

    tokens: Tensor  # (B, T) int32, own texts
    lengths: Tensor  # (B,) int32 of these
    lengths_host: Sequence[int]  # the same on the host
    unturned: Tensor  # (B, U, F) features of the turned levels' patches, unturned


class KaleidoEmbeddings(nn.Module):
    """Packed rows from token ids and encoded patches.

    A patch row is projected by its own level's matrix, gets the level's segment row and the shared projection of its
    location, and is normed by the level's LayerNorm.
    """

    norm_parameters = ("norm_weight", "norm_bias")  # (1 + levels, H): a LayerNorm for the words, then one a level

    locations: Tensor  # (K, 5)
    levels: Tensor  # (K,) index of each position's level
    text_stream: Tensor  # (3,) int64, what makes a dropout key that of texts alone

    def __init__(
        self, settings: ModelSettings, kaleido: KaleidoSettings, num_words: int, num_features: int, image_size: int
    ) -> None:
        super().__init__()
        hidden, num_levels = settings.hidden, len(kaleido.grids)
        self.grids, self.dropout = kaleido.grids, settings.dropout
        self.word = nn.Embedding(num_words, hidden)
        self.position = nn.Parameter(torch.empty(settings.max_positions, hidden))
        self.segment = nn.Parameter(torch.empty(hidden))
        self.level_segment = nn.Parameter(torch.empty(num_levels, hidden))
        self.projections = nn.ModuleList(nn.Linear(num_features, hidden, bias=False) for _ in kaleido.grids)
        self.location = nn.Linear(LOCATION_SIZE, hidden, bias=False)
        self.norm_weight = nn.Parameter(torch.ones(1 + num_levels, hidden))
        self.norm_bias = nn.Parameter(torch.zeros(1 + num_levels, hidden))
        self.register_buffer("locations", _locations(kaleido.grids, settings.locations, image_size), persistent=False)
        self.register_buffer("levels", position_levels(kaleido.grids), persistent=False)
        self.register_buffer("text_stream", torch.tensor([0, 0, TEXT_STREAM]), persistent=False)

    def forward(
        self, tokens: Tensor, lengths: Tensor, num_packed: int, rows: Tensor, source: Tensor,
        dropout_key: Tensor | None, tasks: Sequence[TaskRule], levels: Sequence[int] | None = None,
        locations: Tensor | None = None, alone: Alone | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Packed embeddings (N, H), in the dtype of matrix products, and cumulative lengths (B + 1,).

        Under `alone` the B photographs and the B texts stand behind, with their lengths: (N + N', H) and (3 B + 1,).

        Args:
            tokens: (B, T) int32; lengths: (B,) int32.
            num_packed: N.
            rows: (R, K + G, F) clean features of R photographs, then their G greyed slots (SPEC 2 'Rows'), or (R, K, F).
            source: (B, K') row of each position among the R * (K + G), -1 for blank; K' positions of `levels`.
            dropout_key: (3,) int64 seed, step, stream; needed where there is dropout.
            tasks: whose slots are greyed.
            levels: indices of the levels shown; all by default, () for text alone.
            locations: (B, K, 5) the samples' own, of all levels; those of the grids by default.
            alone: of the same B samples; all levels are shown then.
        Raises:
            ValueError: training with dropout without its key, locations of another shape, or rows of other tasks.
        """
        shown = range(len(self.grids)) if levels is None else levels
        rate = self.dropout if self.training else 0.0
        rows = rows.to(self.word.weight.dtype)  # frozen features are fp32, weights may be bf16
        projected = self._project(dropout(rows, rate, self.training), tasks) if len(shown) else rows.new_zeros(
            0, self.word.weight.shape[1])
        if dropout_key is None:
            if rate:
                raise ValueError("embeddings: training with dropout needs dropout_key (seed, step, stream)")
            dropout_key = lengths.new_zeros(3, dtype=torch.int64)
        if alone is not None:
            tokens, lengths, source, num_packed = self._with_photographs(tokens, lengths, source, num_packed, alone, tasks)
            unturned = dropout(alone.unturned.to(rows.dtype), rate, self.training)
            projected = torch.cat([projected, self._unturned(unturned, tasks)])
            locations = None if locations is None else torch.cat([locations, locations])
        weight, bias = (self._of_levels(table, shown) for table in (self.norm_weight, self.norm_bias))
        packed, cumulative = embed(
            tokens, lengths, num_packed, projected, source, self._constant(shown, len(lengths), locations),
            self.word.weight, self.position, self.segment, weight, bias,
            grids=[self.grids[level] for level in shown], dropout=rate, dropout_key=dropout_key,
            dtype=product_dtype(self.word.weight),
        )
        if alone is None:
            return packed, cumulative
        texts, text_cumulative = embed(
            alone.tokens, alone.lengths, sum(alone.lengths_host), projected[:0], source[: len(alone.lengths), :0],
            projected[:0], self.word.weight, self.position, self.segment, weight, bias, grids=(), dropout=rate,
            dropout_key=dropout_key + self.text_stream, dtype=product_dtype(self.word.weight))
        return torch.cat([packed, texts]), torch.cat([cumulative, cumulative[-1] + text_cumulative[1:]])

    def words(self, tokens: Tensor, place: int) -> Tensor:
        """(n, H) embeddings of single words (n,) at one place of their texts, as `forward` has them without dropout."""
        sums = self.word(tokens) + self.position[place] + self.segment
        normed = layer_norm(sums, sums.shape[-1:], self.norm_weight[0], self.norm_bias[0], EPS)
        return normed.to(product_dtype(self.word.weight))

    def _with_photographs(
        self, tokens: Tensor, lengths: Tensor, source: Tensor, num_packed: int, alone: Alone, tasks: Sequence[TaskRule]
    ) -> tuple[Tensor, Tensor, Tensor, int]:
        """Tokens, lengths, source and N of the joint sequences and, behind them, of the photographs alone."""
        first = torch.zeros_like(tokens)
        first[:, 0] = alone.tokens[:, 0]  # [CLS], and behind it [SEP], whichever numbers they are
        first[:, 1] = alone.tokens.gather(1, alone.lengths[:, None].long() - 1)[:, 0]
        photographs = photograph_source(len(tokens), self.grids, tasks, tokens.device).to(torch.int32)
        return (torch.cat([tokens, first]), torch.cat([lengths, torch.full_like(lengths, FRAME)]),
                torch.cat([source, photographs]), num_packed + len(tokens) * (FRAME + source.shape[1]))

    def _unturned(self, rows: Tensor, tasks: Sequence[TaskRule]) -> Tensor:
        """(B * U, H) of (B, U, F): each unturned patch by its own level's projection."""
        turned = [task.grid for task in tasks if task.effect == "turn"]
        if not turned:
            return rows.new_empty(0, self.word.weight.shape[1])
        parts = zip(turned, rows.split([grid * grid for grid in turned], dim=1), strict=True)
        return torch.cat([self.projections[self.grids.index(grid)](part) for grid, part in parts], dim=1).flatten(0, 1)

    def _of_levels(self, table: Tensor, shown: Sequence[int]) -> Tensor:
        """The text's row and those of the levels shown; a list of indices would have to go up to the device first."""
        if len(shown) == len(self.grids):
            return table
        return torch.stack([table[0], *(table[1 + level] for level in shown)])

    def _project(self, rows: Tensor, tasks: Sequence[TaskRule]) -> Tensor:
        """(R * (K + G), H): each row by its level's projection; greyed rows are of their task's level."""
        levels = [(grid, grid * grid) for grid in self.grids]
        if rows.shape[1] != len(self.levels):
            levels += [(task.grid, task.num_slots) for task in tasks if task.num_greyed]
            if rows.shape[1] != len(self.levels) + total_greyed(tasks):
                raise ValueError(f"embeddings: rows {tuple(rows.shape)} must have {len(self.levels)} positions, or those and "
                                 f"{total_greyed(tasks)} greyed slots of the tasks; hand over the tasks of their plan")
        parts = zip(levels, rows.split([count for _, count in levels], dim=1), strict=True)
        return torch.cat([self.projections[self.grids.index(grid)](part) for (grid, _), part in parts], dim=1).flatten(0, 1)

    def _constant(self, shown: Sequence[int], num_samples: int, locations: Tensor | None) -> Tensor:
        """(K', H), or (B, K', H) of the samples' own locations: what a patch at a position gets, whatever it shows."""
        if locations is None:
            locations = self.locations
        elif locations.shape != (num_samples, *self.locations.shape):
            raise ValueError(f"embeddings: locations {tuple(locations.shape)} must be "
                             f"{(num_samples, *self.locations.shape)}: x1, x2, y1, y2, w*h of each sample's positions")
        constant = self.level_segment[self.levels] + self.location(locations.to(self.location.weight.dtype))
        if len(shown) == len(self.grids):
            return constant
        return constant[..., torch.isin(self.levels, torch.tensor(list(shown), device=self.levels.device)), :]


def _locations(grids: Sequence[int], kind: str, image_size: int) -> Tensor:
    """(K, 5): in [0, 1], or in pixels of the locked square as the authors have them."""
    unit = locations(grids)
    if kind == "unit":
        return unit
    return (unit * torch.tensor([image_size] * 4 + [image_size**2])).round()
