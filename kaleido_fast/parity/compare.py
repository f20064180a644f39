"""Run a path for ten optimizer steps, and hold what two paths computed against each other."""

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from kaleido_fast.parity.bounds import Bounds, Kind
from kaleido_fast.parity.paths import Path, Seen

STEPS = 10
WEIGHED_AFTER = (1, STEPS)  # steps after which weights are compared


class Trace(NamedTuple):
    """What a path computed; by KaleidoBert's names, on the CPU."""

    start: dict[str, Tensor]  # weights
    seen: Seen  # in the first step
    gradients: dict[str, Tensor]  # of the first step, before clipping
    weights: dict[int, dict[str, Tensor]]  # after some steps
    losses: Tensor  # (STEPS,)

    def movement(self, name: str, steps: int) -> Tensor:
        """What `steps` updates added to a weight; without the key biases, whose true gradient is 0 (a softmax does not
        see what all its keys share): there an optimizer makes steps of rounding."""
        moved = self.weights[steps][name] - self.start[name]
        return moved.unflatten(0, (3, -1))[[0, 2]] if name.endswith("query_key_value.bias") else moved


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table."""

    quantity: str
    worst: str  # the tensor of a group in which the difference is largest
    size: float  # its scale: the largest magnitude, of a movement the mean one
    difference: float  # relative to it
    bound: float
    plain: float | None  # what the plain path itself errs in 16 bit; None where both compute alike

    @property
    def holds(self) -> bool:
        return self.difference <= self.bound  # which a NaN is not

    @property
    def used(self) -> float:
        """The difference's share of the bound; past it, most of all a NaN, comes first."""
        if self.holds:
            return self.difference / self.bound if self.bound else 0.0
        return self.difference / self.bound if self.bound and not math.isnan(self.difference) else math.inf


def trace(path: Path, device: torch.device, *, bf16: bool) -> Trace:
    """Ten steps on one batch."""
    start, weights, losses = copied(path.weights()), {}, []
    seen: Seen = {}
    gradients: dict[str, Tensor] = {}
    for number in range(1, STEPS + 1):
        with torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext():
            loss, found = path.forward()
        loss.backward()
        losses.append(loss.detach().cpu())
        if number == 1:
            seen, gradients = copied(found), copied(path.gradients())
        path.update()
        if number in WEIGHED_AFTER:
            weights[number] = copied(path.weights())
    return Trace(start, seen, gradients, weights, torch.stack(losses))


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, not to be changed by what follows."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


def compare(fast: Trace, reference: Trace, bounds: Bounds, plain: Trace | None = None) -> list[Row]:
    """A row a quantity; of a group of tensors that with the least room below its bound.

    Args:
        reference: what is held to be right.
        plain: the plain path in the fast path's precision, where that is a lower one.
    """
    def row(quantity: str, kind: Kind, names: list[str], take: Callable[[Trace, str], Tensor]) -> Row:
        rows = []
        for name in names:
            size, difference = differ(take(fast, name), take(reference, name), kind)
            own = None if plain is None else differ(take(plain, name), take(reference, name), kind)[1]
            worst = name if len(names) > 1 else ""
            rows.append(Row(quantity, worst, size, difference, bounds.of(kind, own), own))
        return max(rows, key=lambda row: row.used)

    rows = [row(name, kind_of(name), [name], lambda trace, name: trace.seen[name]) for name in reference.seen]
    rows.append(row("loss, ten steps", Kind.LATER_LOSS, [""], lambda trace, _: trace.losses))
    rows += [row(f"gradient {group}", Kind.GRADIENT, names, lambda trace, name: trace.gradients[name])
             for group, names in grouped(reference.gradients).items()]
    for steps, kind in ((1, Kind.MOVEMENT), (STEPS, Kind.LATER_MOVEMENT)):
        rows.append(row(f"weights, step {steps}", kind, list(reference.gradients),
                        lambda trace, name, steps=steps: trace.movement(name, steps)))
    return rows


def differ(found: Tensor, truth: Tensor, kind: Kind) -> tuple[float, float]:
    """The size of `truth` and the difference relative to it; 0 where both are 0, infinite where only the truth is.

    Both are the largest magnitude; of movements the mean one, for where a gradient is rounding alone the direction of a
    step is chance.
    """
    if found.shape != truth.shape:
        raise ValueError(f"parity: {tuple(found.shape)} of the fast path stand against {tuple(truth.shape)}")
    if not truth.numel():
        return 0.0, 0.0
    over = torch.mean if kind in (Kind.MOVEMENT, Kind.LATER_MOVEMENT) else torch.max
    size = float(over(truth.double().abs()))
    difference = float(over((found.double() - truth.double()).abs()))
    if size == 0:
        return 0.0, math.inf if difference else difference
    return size, difference / size


def kind_of(quantity: str) -> Kind:
    """Of what is seen on the way to the loss."""
    if quantity in ("plan", "rows"):
        return Kind.EXACT
    return Kind.LOSS if quantity.startswith("loss") else Kind.FORWARD


def grouped(names: Iterable[str]) -> dict[str, list[str]]:
    """Parameters by the part of the model: a layer, a head, a table of the embeddings."""
    groups: dict[str, list[str]] = {}
    for name in names:
        parts = name.split(".")
        depth = {"encoder": 3, "embeddings": 2, "kaleido_heads": 2}.get(parts[0], 1)
        groups.setdefault(".".join(parts[:depth]), []).append(name)
    return groups
