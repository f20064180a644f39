"""Contrast over blocks of consecutive stream positions, wherever their samples lie (SPEC 10).

Group g of the stream lies on worker g mod workers, so a block of a micro-step lies on several. Their embeddings are
gathered with their gradients, in stream order, and each worker sums the rows and columns of its own samples.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from kaleido_fast.kernels.plan_rules import GROUP
from kaleido_fast.model.contrast import Embeddings, Pairs, contrast_loss


@dataclass(frozen=True, slots=True)
class StreamBlocks:
    """A worker's place among those whose micro-batches make a micro-step."""

    rank: int = 0
    num_workers: int = 1
    first_rank: int = 0  # the worker of each micro-step's first group

    @classmethod
    def at(cls, position: int, rank: int, num_workers: int) -> "StreamBlocks":
        """Where micro-steps begin at stream position `position`, or whole micro-steps behind it."""
        return cls(rank, num_workers, position // GROUP % num_workers)

    def loss(
        self, embeddings: Embeddings, scale: Tensor, pairs: Pairs, block: int, *, across: bool
    ) -> tuple[Tensor, Tensor]:
        """`contrast_loss` of this worker's B samples, whole groups.

        Args:
            block: samples of a block.
            across: whether blocks go across the workers, who all call it then; otherwise they are of consecutive samples of
                this worker, of gcd(block, B) each.
        """
        if not across or self.num_workers == 1:
            number = len(pairs.present)
            return contrast_loss(embeddings, scale, pairs, math.gcd(block, number), pairs.present)
        gathered = self._in_order(_Gathered.apply(torch.cat(embeddings, dim=1), self.rank, self.num_workers))
        columns = torch.stack([column.long() for column in pairs], dim=1)
        products, readings, present = self._in_order(_gather(columns, self.num_workers)).unbind(1)
        everywhere = Pairs(products, readings, present.bool())
        return contrast_loss(Embeddings(*gathered.chunk(2, dim=1)), scale, everywhere, block, self._own(present))

    def _in_order(self, gathered: Tensor) -> Tensor:
        """(W * B, …) in stream order, of (W, B, …) by worker."""
        groups = gathered.unflatten(1, (-1, GROUP)).roll(-self.first_rank, dims=0)
        return groups.transpose(0, 1).flatten(0, 2)

    def _own(self, gathered: Tensor) -> Tensor:
        """(W * B,) bool: which of the `gathered` samples are this worker's."""
        group = torch.arange(len(gathered), device=gathered.device) // GROUP
        return (group + self.first_rank) % self.num_workers == self.rank


class _Gathered(torch.autograd.Function):
    """(W, B, E) of (B, E) on each of W workers; backward, the gradients of all workers' copies are summed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rank: int, num_workers: int) -> Tensor:
        ctx.rank = rank
        return _gather(x, num_workers)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient[ctx.rank], None, None


def _gather(x: Tensor, num_workers: int) -> Tensor:
    parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(num_workers)]
    dist.all_gather(parts, x.contiguous())
    return torch.stack(parts)
