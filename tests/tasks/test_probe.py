"""The linear probe: separable data, the optimum, the choice of its strength."""

import numpy as np
import pytest
import torch

from kaleido_fast.tasks.metrics import accuracy
from kaleido_fast.tasks.probe import Labelled, train_probe

STRENGTHS = (1e-1, 1e-3)


def _blobs(n: int, seed: int, spread: float = 0.3, classes: int = 4, width: int = 12) -> Labelled:
    """Classes around fixed centres, on features of very different scales; one feature never varies."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, width))
    labels = random.integers(0, classes, n)
    features = (centres[labels] + spread * random.normal(size=(n, width))) * np.logspace(-3, 3, width)
    features[:, 5] = 7.0
    return Labelled(torch.from_numpy(features).float(), labels)


def test_separable_classes_are_told_apart() -> None:
    test = _blobs(200, 2)
    probe = train_probe(_blobs(400, 0), _blobs(100, 1), 4, strengths=STRENGTHS, iterations=100)
    assert accuracy(probe.predict(test.features), test.labels) == 1.0


def test_shuffled_labels_are_not_learnt() -> None:
    train, test = _blobs(400, 0), _blobs(400, 2)
    shuffled = Labelled(train.features, np.random.default_rng(5).permutation(train.labels))
    probe = train_probe(shuffled, _blobs(100, 1), 4, strengths=(1e-1,), iterations=100)
    assert accuracy(probe.predict(test.features), test.labels) < 0.6


def test_the_gradient_vanishes_at_the_solution() -> None:
    """Stationarity of the convex loss, worked out by hand: x^T (softmax - onehot) / N + strength W = 0."""
    train = _blobs(300, 0, spread=2.0)
    probe = train_probe(train, _blobs(100, 1), 4, strengths=(1e-2,), iterations=300)
    x = (train.features - probe.mean) / probe.deviation
    error = torch.softmax(x @ probe.weight + probe.bias, dim=1) - torch.eye(4)[train.labels]
    gradient = x.T @ error / len(x) + 1e-2 * probe.weight
    assert gradient.abs().max() < 1e-4
    assert error.mean(dim=0).abs().max() < 1e-4


def test_strength_is_chosen_on_validation() -> None:
    """120 features for 60 noisy products: weak regularisation overfits, and only validation can know."""
    train, validation = (_blobs(n, seed, spread=4.0, width=120) for n, seed in ((60, 0), (2000, 1)))
    reached = {}
    for strength in (10.0, 1e-1, 1e-5):
        probe = train_probe(train, validation, 4, strengths=(strength,), iterations=200)
        reached[strength] = accuracy(probe.predict(validation.features), validation.labels)
    assert len(set(reached.values())) > 1
    chosen = train_probe(train, validation, 4, strengths=tuple(reached), iterations=200)
    assert accuracy(chosen.predict(validation.features), validation.labels) >= max(reached.values()) - 0.01
    assert chosen.strength == max(reached, key=reached.__getitem__)


def test_the_same_data_gives_the_same_probe() -> None:
    probes = [
        train_probe(_blobs(200, 0), _blobs(50, 1), 4, strengths=STRENGTHS, iterations=50) for _ in range(2)
    ]
    assert torch.equal(probes[0].weight, probes[1].weight)


def test_no_products_are_refused() -> None:
    none = Labelled(torch.empty(0, 12), np.empty(0, np.int64))
    with pytest.raises(ValueError, match="needs train and validation products, found 400 and 0"):
        train_probe(_blobs(400, 0), none, 4, strengths=STRENGTHS, iterations=10)
