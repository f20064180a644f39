"""Run a path for ten optimizer steps, and hold what two paths computed against each other."""

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from kaleido_fast.parity.bounds import Bounds, Kind
from kaleido_fast.parity.paths import Path, Seen

COMPARED_STEPS = 10
EVERY = "every tensor"
WEIGHED_AFTER = (1, COMPARED_STEPS)  # steps after which weights are compared


class Trace(NamedTuple):
    """What a path computed; by KaleidoBertModel's names, on the CPU."""

    start: dict[str, Tensor]  # weights
    seen: Seen  # in the first step
    gradients: dict[str, Tensor]  # of the first step, before clipping
    weights: dict[int, dict[str, Tensor]]  # after some steps
    ways: dict[int, dict[str, float]]  # how far a tensor's numbers had gone by then, step by step, on average
    losses: Tensor  # (COMPARED_STEPS,)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A line of the table."""

    quantity: str
    worst: str  # the tensor of a group with the least room below its bound
    size: float  # its largest magnitude; of weights, how far their numbers went on average
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
    start = copied(path.weights())
    before, way, losses = start, dict.fromkeys(start, 0.0), []
    seen: Seen = {}
    gradients: dict[str, Tensor] = {}
    weights, ways = {}, {}
    for number in range(1, COMPARED_STEPS + 1):
        with torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext():
            loss, quantities = path.forward()
        loss.backward()
        losses.append(loss.detach().cpu())
        if number == 1:
            seen, gradients = copied(quantities), copied(path.gradients())
        path.update()
        now = copied(path.weights())
        way = {name: way[name] + float(without_keys(name, now[name] - before[name]).abs().mean()) for name in now}
        before = now
        if number in WEIGHED_AFTER:
            weights[number], ways[number] = now, way
    return Trace(start, seen, gradients, weights, ways, torch.stack(losses))


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, not to be changed by what follows."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


def compare(fast: Trace, reference: Trace, bounds: Bounds, plain: Trace | None = None) -> list[Comparison]:
    """A row a quantity; of a group of tensors that with the least room below its bound.

    Args:
        reference: what is held to be right.
        plain: the plain path in the fast path's precision, where that is a lower one.
    """
    def row(
        quantity: str, kind: Kind, names: Iterable[str], measure: Callable[[Trace, str], tuple[float, float]]
    ) -> Comparison:
        rows = []
        for name in names:
            size, difference = measure(fast, name)
            plain_difference = None if plain is None else measure(plain, name)[1]
            rows.append(Comparison(quantity, name, size, difference, bounds.of(kind, plain_difference), plain_difference))
        worst = max(rows, key=lambda row: row.used)
        return worst if len(rows) > 1 else replace(worst, worst="")

    rows = [row(name, kind_of_quantity(name), [name], lambda path, name: differ(path.seen[name], reference.seen[name]))
            for name in reference.seen]
    rows.append(row("loss, ten steps", Kind.LATER_LOSS, [""], lambda path, _: differ(path.losses, reference.losses)))
    rows += [row(f"gradient {group}", Kind.GRADIENT, names,
                 lambda path, name: differ(path.gradients[name], reference.gradients[name]))
             for group, names in grouped(reference.gradients).items()]
    for steps, kind in zip(WEIGHED_AFTER, (Kind.MOVEMENT, Kind.LATER_MOVEMENT), strict=True):
        # In 16 bit a hundredth of all steps turn: in a bias of two numbers that is chance, over all tensors a share.
        names = list(reference.gradients) if plain is None else [EVERY]
        rows.append(row(f"weights, step {steps}", kind, names, partial(_strayed_from, reference, steps)))
    return rows


def differ(value: Tensor, truth: Tensor) -> tuple[float, float]:
    """The largest magnitude of `truth`, and the largest difference relative to it; infinite where the shapes differ."""
    size = float(truth.double().abs().max()) if truth.numel() else 0.0
    if value.shape != truth.shape:
        return size, math.inf
    return relative(float((value.double() - truth.double()).abs().max()) if truth.numel() else 0.0, size)


def _strayed_from(truth: Trace, steps: int, path: Trace, name: str) -> tuple[float, float]:
    return strayed(path, truth, name, steps)


def strayed(path: Trace, truth: Trace, name: str, steps: int) -> tuple[float, float]:
    """How far the numbers of a weight went in `steps` updates, and how far they lie apart by then, relative to it.

    Both on average over the tensor: where a gradient is rounding alone the direction of Adam's step is chance, so that
    there is nothing to be said of the largest. Of `EVERY` tensor: the average of both.
    """
    if name == EVERY:
        pairs = [strayed(path, truth, name, steps) for name in truth.start]
        return tuple(sum(column) / len(pairs) for column in zip(*pairs, strict=True))
    apart = without_keys(name, path.weights[steps][name] - truth.weights[steps][name])
    return relative(float(apart.double().abs().mean()), truth.ways[steps][name])


def without_keys(name: str, tensor: Tensor) -> Tensor:
    """A bias of query, key and value without the key's: its true gradient is 0, since a softmax does not see what all its
    keys share, and its steps are rounding."""
    return tensor.unflatten(0, (3, -1))[[0, 2]] if name.endswith("query_key_value.bias") else tensor


def relative(difference: float, size: float) -> tuple[float, float]:
    """`size`, and `difference` by it: 0 where both are 0, infinite where only the size is."""
    if size:
        return size, difference / size
    return size, math.inf if difference else difference


def kind_of_quantity(quantity: str) -> Kind:
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
