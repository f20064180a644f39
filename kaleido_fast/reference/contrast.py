"""Contrast, the plain way (SPEC 10): the photographs and texts of a block that are there, compared one block after another."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from kaleido_fast.model.settings import ModelSettings

LARGEST_SCALE = 100.0


class Compared(NamedTuple):
    """A batch's photographs and texts, each alone."""

    photographs: Tensor  # (B, E) of length 1
    texts: Tensor  # (B, E) of length 1
    scale: Tensor  # (1,), 1 / temperature


class ReferenceContrast(nn.Module):
    """A linear map for each modality; similarities are multiplied by exp(log_scale), which stays in 1..100."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.photograph = nn.Linear(settings.hidden, settings.itc_dim, bias=False)
        self.text = nn.Linear(settings.hidden, settings.itc_dim, bias=False)
        self.log_scale = nn.Parameter(torch.tensor([math.log(1 / 0.07)]))

    def forward(self, photographs: Tensor, texts: Tensor) -> Compared:
        """The first output rows (B, H) of photographs alone and of texts alone."""
        wide = torch.promote_types(photographs.dtype, torch.float32)
        return Compared(normalize(self.photograph(photographs).to(wide)), normalize(self.text(texts).to(wide)),
                        self.log_scale.exp().clamp(1.0, LARGEST_SCALE))


def contrast_rows(compared: Compared, products: Tensor, texts: Tensor, present: Tensor, block: int) -> Tensor:
    """(B,) half the cross entropy of each photograph over the block's texts, and half that of its text over the photographs; 0
    in a hole.

    Args:
        products: (B,); texts: (B, T) token rows; present: (B,) bool.
        block: samples of a block, which divides B.
    """
    rows = compared.photographs.new_zeros(len(products))
    for first in range(0, len(products), block):
        there = first + present[first : first + block].nonzero()[:, 0]
        if not len(there):
            continue
        alike = (products[there, None] == products[there]) | (texts[there, None] == texts[there]).all(dim=2)
        targets = alike / alike.sum(dim=1, keepdim=True)
        similarity = compared.photographs[there] @ compared.texts[there].T * compared.scale
        both = cross_entropy(similarity, targets.to(similarity), reduction="none") + \
            cross_entropy(similarity.T, targets.to(similarity), reduction="none")
        rows = rows.index_put((there,), both / 2)
    return rows
