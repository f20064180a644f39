"""The pre-training heads (SPEC 3 and 7) and the row arithmetic that feeds them without waiting for the device."""

import torch
from torch import Tensor, nn

from kaleido_fast.kernels.geometry import offset_of_grid
from kaleido_fast.model.encoder import activate
from kaleido_fast.model.precision import LayerNorm
from kaleido_fast.model.row_cross_entropy import row_cross_entropy
from kaleido_fast.model.settings import ModelSettings
from kaleido_fast.model.task_table import KaleidoTask


class WordHead(nn.Module):
    """AMLM: dense, GELU, LayerNorm, a decoder tied to the word embedding, bias."""

    def __init__(self, settings: ModelSettings, num_words: int) -> None:
        super().__init__()
        self.activation, self.num_words = settings.activation, num_words
        self.dense = nn.Linear(settings.hidden, settings.hidden)
        self.norm = LayerNorm(settings.hidden, eps=settings.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(num_words))

    def forward(self, rows: Tensor, words: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Summed cross entropy () and right answers () of rows (M, H) and their words (M,), IGNORED where none counts.

        The padded word table (V', H) is the decoder; rows that pad it get no probability.
        """
        return row_cross_entropy(self._decoded(rows), words, self.bias, labels)

    def logits(self, rows: Tensor, words: Tensor) -> Tensor:
        """(M, V), which `forward` never holds: to look at, or to sample from."""
        return nn.functional.linear(self._decoded(rows), words)[:, : self.num_words] + self.bias

    def _decoded(self, rows: Tensor) -> Tensor:
        return self.norm(activate(self.dense(rows), self.activation))


class LevelHead(nn.Module):
    """A class of a whole level: linear on the level's outputs, concatenated in slot order."""

    def __init__(self, task: KaleidoTask, hidden: int) -> None:
        super().__init__()
        self.classify = nn.Linear(task.grid**2 * hidden, task.num_classes)

    def forward(self, outputs: Tensor) -> Tensor:
        """(B, n*n, H) -> (B, classes)."""
        return self.classify(outputs.flatten(1))


class CategoryHead(nn.Module):
    """A product's category or sub-category: dropout, then linear on the pooled output (SPEC 9)."""

    def __init__(self, hidden: int, num_classes: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(hidden, num_classes)

    def forward(self, pooled: Tensor) -> Tensor:
        """(B, H) -> (B, classes)."""
        return self.classify(self.dropout(pooled))


def patch_rows(cumulative: Tensor, lengths: Tensor, first: int, count: int) -> Tensor:
    """(B, count) int64 packed rows of `count` positions from `first` on; `lengths` are the text's."""
    start = (cumulative[:-1] + lengths).long() + first
    return start[:, None] + torch.arange(count, device=start.device)


def level_rows(cumulative: Tensor, lengths: Tensor, task: KaleidoTask, grids: tuple[int, ...]) -> Tensor:
    """(B, n*n) int64 packed rows of a task's level."""
    return patch_rows(cumulative, lengths, offset_of_grid(grids, task.grid), task.grid**2)


def compact(values: Tensor, keep: Tensor, count: int) -> Tensor:
    """(count,) the `values` at which `keep` holds, in order; the host knows `count`, so nothing waits for the device.

    Args:
        values, keep: any one shape; `keep` bool with exactly `count` true.
    """
    keep = keep.flatten()
    place = torch.where(keep, keep.cumsum(0) - 1, count)
    out = values.new_zeros(count + 1)
    return out.scatter_(0, place, values.flatten())[:count]
