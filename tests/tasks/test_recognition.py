"""Recognition: which products are taken, their order, and outputs that know the class."""

import numpy as np
import pytest
import torch

from kaleido_fast.tasks.recognition import INPUTS, Recognisable, choose_products, pool_products, recognise
from kaleido_fast.tasks.settings import EvalSettings


def _split(n: int, seed: int) -> Recognisable:
    """The image tells the sub-category, the text nothing, both together the category only."""
    random = np.random.default_rng(seed)
    subcategory = random.integers(0, 8, n)
    category = subcategory // 3
    noise = 0.1 * random.normal(size=(3, n, 8))
    features = np.stack([np.eye(8)[subcategory], np.zeros((n, 8)), np.eye(8)[category]]) + noise
    return Recognisable(
        dict(zip(INPUTS, torch.from_numpy(features).float(), strict=True)), category, subcategory
    )


def test_each_input_is_judged_by_what_it_shows() -> None:
    train, validation, test = _split(600, 0), _split(200, 1), _split(400, 2)
    report = recognise(train, validation, test, {"category": 3, "subcategory": 9}, EvalSettings())
    assert report["category"]["image"]["accuracy"] == report["subcategory"]["image"]["accuracy"] == 1.0
    assert report["category"]["both"]["accuracy"] == 1.0
    assert report["subcategory"]["both"]["accuracy"] < 0.6
    assert report["subcategory"]["text"]["accuracy"] < 0.3
    image = report["subcategory"]["image"]
    assert image["macro_f1"] == 1.0
    assert image["macro_f1_all"] == pytest.approx(8 / 9)  # the ninth label never occurs
    assert image["most_frequent"] == pytest.approx(np.bincount(test.subcategory).max() / 400)
    assert report["probe"] == {"train_products": 600, "validation_products": 200, "test_products": 400}


def test_pooled_outputs_come_back_in_their_order() -> None:
    random = np.random.default_rng(0)
    products, lengths = random.permutation(30), random.integers(3, 9, 30)
    samples, seen = 100 + products, []

    def pooled(images: np.ndarray | None, texts: np.ndarray | None) -> torch.Tensor:
        given = images if images is not None else texts
        seen.append(len(given))
        return torch.from_numpy(given[:, None].astype(np.float32))

    outputs = pool_products(pooled, samples, products, lengths, batch=7)
    assert (outputs["image"][:, 0].numpy() == samples).all()
    assert (outputs["text"][:, 0].numpy() == products).all()
    assert sum(seen) == 3 * 30


@pytest.mark.parametrize(("cap", "expected"), [(0, 50), (50, 50), (20, 20), (99, 50)])
def test_products_are_capped_and_drawn_by_seed(cap: int, expected: int) -> None:
    chosen = choose_products(50, cap, seed=1)
    assert len(np.unique(chosen)) == expected
    assert (np.diff(chosen) > 0).all()
    assert (choose_products(50, cap, seed=1) == chosen).all()
    if cap == 20:
        assert (choose_products(50, cap, seed=2) != chosen).any()
