"""How far the two paths may lie apart.

Every difference is relative to the largest magnitude of its tensor, and a bound is a factor times eps, the distance from 1
to the next number of the dtype that the fast path computes in. The factors are what summing in another order may cost: of
the shapes that were measured the worst came to a tenth of them (docs/parity.md). In 16 bit the truth is the plain
path in fp32, and the fast path may also err at most twice what the plain path errs there, plus two eps.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

import torch


class Kind(Enum):
    """What a quantity is; its bound follows."""

    EXACT = auto()  # integers: nothing may differ
    FORWARD = auto()
    LOSS = auto()
    LATER_LOSS = auto()  # of ten steps
    GRADIENT = auto()
    MOVEMENT = auto()  # of the weights, in one step
    LATER_MOVEMENT = auto()  # in ten


FACTORS_FP32 = {Kind.EXACT: 0, Kind.FORWARD: 64, Kind.LOSS: 64, Kind.LATER_LOSS: 256, Kind.GRADIENT: 512,
                Kind.MOVEMENT: 512, Kind.LATER_MOVEMENT: 2048}
# A step of Adam has none: it divides by the gradient's size, so that a gradient of rounding moves a weight as far as any.
FACTORS_BF16 = {Kind.EXACT: 0, Kind.FORWARD: 16, Kind.LOSS: 4, Kind.LATER_LOSS: 16, Kind.GRADIENT: 64,
                Kind.MOVEMENT: float("inf"), Kind.LATER_MOVEMENT: float("inf")}
AS_PLAIN, ULPS = 2, 2


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds of one precision."""

    eps: float
    factors: Mapping[Kind, float]

    def of(self, kind: Kind, plain: float | None) -> float:
        """The bound of a quantity, where the plain path itself differs by `plain` in the same precision."""
        fixed = self.factors[kind] * self.eps if self.factors[kind] else 0.0
        return fixed if plain is None else min(fixed, AS_PLAIN * plain + ULPS * self.eps)


def bounds_of(dtype: torch.dtype) -> Bounds:
    """Of float32 and float64 alike, in their own eps; of bfloat16."""
    return Bounds(torch.finfo(dtype).eps, FACTORS_BF16 if dtype == torch.bfloat16 else FACTORS_FP32)
