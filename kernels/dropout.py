"""Dropout that is indexed by place and not drawn in sequence, so that a backward draws the same mask again.

Philox-4x32-10 with key = seed (low, high) and counter = (e >> 2 (low, high), step, stream): value e = row * H
+ column is dropped where word e & 3 lies below round(rate * 2^32); the rest is scaled by 1 / (1 - rate).
"""

import torch
from torch import Tensor

from kaleido_fast.kernels.philox import philox

_COUNTERS_AT_ONCE = 16384  # on a CPU: 25 ms instead of 64 ms for 1.5 M values on one thread, since they stay in cache


def drop_(x: Tensor, rate: float, key: Tensor) -> Tensor:
    """Drop in place; a rate of 0 draws nothing.

    Args:
        x: (N, H), contiguous.
        rate: in [0, 1).
        key: (3,) int64: seed, step, stream = micro-batch * 65536 + worker.
    Returns:
        x.
    """
    if rate == 0:
        return x
    values, threshold = x.view(-1), round(rate * 2**32)
    counters = torch.arange((len(values) + 3) // 4, device=x.device)
    # A GPU's launches and a compiler's graph are by the piece: one for all there.
    at_once = max(1, len(counters)) if x.is_cuda or torch.compiler.is_compiling() else _COUNTERS_AT_ONCE
    for counter, part in zip(counters.split(at_once), values.split(4 * at_once), strict=True):
        words = torch.stack(philox(key[0], key[0] >> 32, counter, counter >> 32, key[1], key[2]), dim=1)
        part.masked_fill_(words.view(-1)[: len(part)] < threshold, 0)
    return x.mul_(1 / (1 - rate))
