"""A linear probe: multinomial logistic regression on frozen outputs (SPEC 9, category and sub-category)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kaleido_fast.tasks.metrics import accuracy

SMALLEST_DEVIATION = 1e-6  # a feature that never varies is left at zero instead of being blown up


@dataclass(frozen=True, slots=True)
class Labelled:
    """Outputs of products and what they should be recognised as."""

    features: Tensor  # (N, H) fp32, CPU
    labels: np.ndarray  # (N,) int64


@dataclass(frozen=True, slots=True)
class Probe:
    """A trained probe: argmax of ((x - mean) / deviation) W + b."""

    mean: Tensor  # (H,)
    deviation: Tensor  # (H,)
    weight: Tensor  # (H, C)
    bias: Tensor  # (C,)
    strength: float  # the L2 strength that was best on the validation products

    def predict(self, features: Tensor) -> np.ndarray:
        """(N,) int64 classes of (N, H) features."""
        return (self._standardise(features) @ self.weight + self.bias).argmax(dim=1).numpy()

    def _standardise(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.deviation


def train_probe(
    train: Labelled, validation: Labelled, num_classes: int, *, strengths: Sequence[float], iterations: int
) -> Probe:
    """Minimise mean cross entropy + strength / 2 * |W|^2 by L-BFGS, for the strength best on validation.

    The features are standardised by the train products' mean and deviation. Strengths run from strong to
    weak, each starting from the one before; of equally good ones the strongest wins. The loss is convex and
    starts from zero, so nothing is random.

    Raises:
        ValueError: there are no products to learn from or to choose the strength on.
    """
    if not len(train.labels) or not len(validation.labels):
        raise ValueError(
            f"the linear probe needs train and validation products, found {len(train.labels)} and "
            f"{len(validation.labels)}; prepare a larger catalogue"
        )
    mean, deviation = (
        train.features.mean(dim=0),
        train.features.std(dim=0, correction=0).clamp(min=SMALLEST_DEVIATION),
    )
    features, labels = (train.features - mean) / deviation, torch.from_numpy(train.labels)
    weight, bias = torch.zeros(features.shape[1], num_classes), torch.zeros(num_classes)
    best: tuple[float, Probe] | None = None
    for strength in sorted(strengths, reverse=True):
        weight, bias = _descend(features, labels, weight, bias, strength, iterations)
        probe = Probe(mean, deviation, weight, bias, strength)
        reached = accuracy(probe.predict(validation.features), validation.labels)
        if best is None or reached > best[0]:
            best = (reached, probe)
    assert best is not None
    return best[1]


def _descend(
    features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor, strength: float, iterations: int
) -> tuple[Tensor, Tensor]:
    weight, bias = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=iterations, history_size=10, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(features @ weight + bias, labels)
        value = value + strength / 2 * weight.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return weight.detach(), bias.detach()
