"""Which negatives each product gets, of how alike its photograph and their texts are (SPEC 10 'Mined negatives').

Of a product's sub-category those with the greatest similarity / temperature + g, g Gumbel noise: a draw without replacement in
proportion to exp(similarity / temperature). All in float64.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kaleido_fast.kernels.philox import MINING, draw

LOOKED_AT = 8192  # products of a sub-category that a product is compared with, the next cyclically
ENTRIES = 1 << 20  # comparisons at once; a product's own, up to LOOKED_AT, stay together


@dataclass(frozen=True, slots=True)
class EmbeddedProducts:
    """The n products of a split, by rank; zeros where one has no readable photograph, or no text that can be used."""

    photographs: Tensor  # (n, E) fp32 of length 1
    texts: Tensor  # (n, E) fp32 of length 1
    scale: float  # 1 / temperature
    keys: np.ndarray  # (n,) int64 bits of the sample key of the photograph that was embedded
    readings: np.ndarray  # (n,) int64, equal where the token rows, cut to T, are
    has_photograph: np.ndarray  # (n,) bool
    has_text: np.ndarray  # (n,) bool


def draw_lists(
    products: EmbeddedProducts, members: np.ndarray, first: int, last: int, *, count: int, seed: int, epoch: int,
    device: torch.device,
) -> np.ndarray:
    """(last - first, count) int32: ranks of the negatives of some products of a sub-category, ascending, then -1.

    Args:
        members: (n,) ranks of the sub-category's products, ascending.
        first, last: places among them of the products that get lists.
        epoch: of the mining.
    """
    lists = np.full((last - first, count), -1, np.int32)
    looked_at = min(len(members) - 1, LOOKED_AT)
    if looked_at < 1:
        return lists
    at_once = max(1, ENTRIES // looked_at)
    for start in range(first, last, at_once):
        queries = np.arange(start, min(start + at_once, last))
        # Query i looks at the places i, i + 1, … of these.
        places = (start + 1 + np.arange(looked_at + len(queries) - 1)) % len(members)
        best = _best(products, members[queries], members[places], looked_at, min(count, looked_at), seed, epoch, device)
        lists[queries - first, : best.shape[1]] = best
    return lists


def _best(
    products: EmbeddedProducts, ranks: np.ndarray, around: np.ndarray, looked_at: int, count: int, seed: int, epoch: int,
    device: torch.device,
) -> np.ndarray:
    """(q, count) int64 for the products `ranks` (q,), of which the i-th looks at `looked_at` of `around` from the i-th on."""
    def on_device(values: np.ndarray | Tensor) -> Tensor:
        return torch.as_tensor(values).to(device)

    photographs, texts = on_device(products.photographs[ranks]).double(), on_device(products.texts[around]).double()
    columns = torch.arange(len(ranks), device=device)[:, None] + torch.arange(looked_at, device=device)
    candidates = on_device(around)[columns]
    words, *_ = draw(seed, epoch, on_device(products.keys[ranks])[:, None], MINING, candidates)
    noise = -torch.log(-torch.log((words.double() + 0.5) / 2**32))
    values = (photographs @ texts.mT).gather(1, columns) * products.scale + noise
    same = on_device(products.readings[around])[columns] == on_device(products.readings[ranks])[:, None]
    values = values.masked_fill(same | ~on_device(products.has_text[around])[columns], -torch.inf)
    greatest = values.topk(count, dim=1)
    unfit = (greatest.values == -torch.inf) | ~on_device(products.has_photograph[ranks])[:, None]
    # In order of rank: a word picks by place, and of two that are nearly alike rounding decides which is the better.
    behind = len(products.keys)
    drawn = candidates.gather(1, greatest.indices).masked_fill(unfit, behind).sort(dim=1).values
    return drawn.masked_fill(drawn == behind, -1).cpu().numpy()
