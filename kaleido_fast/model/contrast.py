"""Image-text contrast, ITC (SPEC 10): embeddings of photographs and texts alone, and the loss over blocks of them.

Shapes: n samples of whole blocks in stream order, E numbers an embedding.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

COLDEST = math.log(100)  # most of s; the temperature is exp(-s)
START = math.log(1 / 0.07)


class Embeddings(NamedTuple):
    """What ITC compares."""

    photographs: Tensor  # (n, E) of length 1, fp32
    texts: Tensor  # (n, E) of length 1, fp32


class Pairs(NamedTuple):
    """Which photographs and texts go together: those of one product, and of texts that read alike."""

    products: Tensor  # (n,) int64
    texts: Tensor  # (n,) int64, equal where the token rows are
    present: Tensor  # (n,) bool, False for a hole


class ContrastHeads(nn.Module):
    """A linear map without bias for each modality, and the temperature."""

    scale_parameters = ("log_scale",)  # keeps the start that it is given here, and never decays

    def __init__(self, hidden: int, size: int) -> None:
        """Maps of H = `hidden` to E = `size` numbers."""
        super().__init__()
        self.photograph = nn.Linear(hidden, size, bias=False)
        self.text = nn.Linear(hidden, size, bias=False)
        self.log_scale = nn.Parameter(torch.full((1,), START))

    def forward(self, photographs: Tensor, texts: Tensor) -> tuple[Embeddings, Tensor]:
        """Embeddings of the first output rows (n, H) of photographs alone and texts alone, and 1 / temperature (1,) fp32."""
        return Embeddings(self.of_photographs(photographs), self.of_texts(texts)), self.scale()

    def of_photographs(self, rows: Tensor) -> Tensor:
        """(n, E) of length 1 in fp32, from the first output rows (n, H) of photographs alone."""
        return _normalised(self.photograph(rows))

    def of_texts(self, rows: Tensor) -> Tensor:
        """(n, E) of length 1 in fp32, from the first output rows (n, H) of texts alone."""
        return _normalised(self.text(rows))

    def scale(self) -> Tensor:
        """(1,) 1 / temperature, between 1 and 100."""
        return scale_of(self.log_scale)


def scale_of(log_scale: Tensor) -> Tensor:
    """(1,) 1 / temperature, between 1 and 100, of the parameter that is learned."""
    return _Clamped.apply(log_scale.to(_wide(log_scale))).exp()


def contrast_loss(embeddings: Embeddings, scale: Tensor, pairs: Pairs, block: int, counted: Tensor) -> tuple[Tensor, Tensor]:
    """The summed loss () of the samples in `counted`, and how many of them find their like ().

    In a block: cross entropy of similarity * scale against targets uniform over what goes together, over rows
    (photographs) and columns (texts), of each sample their mean. A hole is neither row nor column. A sample finds its
    like by half where only its photograph, or only its text, is nearest to one that goes with it.

    Args:
        block: samples of a block; divides n.
        counted: (n,) bool, the samples whose rows and columns are summed, present ones alone.
    """
    photographs, texts = (side.unflatten(0, (-1, block)) for side in embeddings)
    products, readings, present = (column.unflatten(0, (-1, block)) for column in pairs)
    with torch.autocast(photographs.device.type, enabled=False):
        logits = photographs @ texts.mT * scale
    there = present[:, :, None] & present[:, None, :]
    alike = (products[:, :, None] == products[:, None, :]) | (readings[:, :, None] == readings[:, None, :])
    # A hole's own row and column hold one number, so that nothing there is infinite; nobody counts it.
    alike = (alike & there) | torch.diag_embed(~present)
    logits = logits.masked_fill(~(there | alike), -math.inf)
    loss, found = logits.new_zeros(()), logits.new_zeros(())
    weights = (counted & pairs.present).unflatten(0, (-1, block)).to(logits.dtype)
    for dim in (2, 1):
        # a target's share times a log probability of -inf is no number
        log_p = logits.log_softmax(dim).masked_fill(~alike, 0)
        loss = loss - ((log_p.sum(dim) / alike.sum(dim)) * weights).sum() / 2
        nearest = logits.detach().argmax(dim, keepdim=True)
        found = found + (alike.gather(dim, nearest).squeeze(dim) * weights).sum() / 2
    return loss, found


class _Clamped(torch.autograd.Function):
    """x in [0, COLDEST]; outside, a gradient passes where it leads back inside."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(0, COLDEST)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        away = ((x < 0) & (gradient > 0)) | ((x > COLDEST) & (gradient < 0))  # the weights move against it
        return gradient.masked_fill(away, 0)


def _normalised(rows: Tensor) -> Tensor:
    wide = rows.to(_wide(rows))
    return wide / wide.norm(dim=1, keepdim=True).clamp_min(torch.finfo(wide.dtype).tiny)


def _wide(x: Tensor) -> torch.dtype:
    """fp32, or float64 where the model is."""
    return torch.promote_types(x.dtype, torch.float32)
