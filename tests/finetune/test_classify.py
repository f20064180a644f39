"""`classify` of the Python API gives what evaluation gives, from a run and from an export."""

import json
from pathlib import Path

import pytest
import torch

from kaleido_fast import KaleidoBert
from kaleido_fast.cli import main
from kaleido_fast.config import load_run_config


def test_classes_are_those_of_the_evaluation(category_run: Path, tiny_shards: Path, tmp_path: Path) -> None:
    file = tmp_path / "products.jsonl"
    assert main(["evaluate", str(category_run), "--per-sample", str(file), "eval.examples=0"]) == 0
    products = [json.loads(line) for line in file.read_text().splitlines()][:4]
    assert main(["export", str(category_run), "--out", str(tmp_path / "model")]) == 0
    catalogue = tiny_shards.parent / "catalogue"
    pictures = [catalogue / "images" / f"{product['id']}.jpg" for product in products]
    for folder in (category_run, tmp_path / "model"):
        model = KaleidoBert.from_pretrained(folder, batch_size=3)
        given = model.classify(pictures)
        assert given.names == tuple(json.loads((tiny_shards / "manifest.json").read_text())["categories"])
        assert given.labels == [product["image"]["predicted"] for product in products]
        assert given.probabilities.max(-1).values.tolist() == pytest.approx(
            [product["image"]["probability"] for product in products], abs=1e-4)
        torch.testing.assert_close(given.probabilities.sum(-1), torch.ones(4))
    texts = ["a red shirt", "blue shoes"]
    assert model.classify(texts=texts).probabilities.shape == (2, len(given.names))
    both = model.classify(pictures[:2], texts).probabilities
    assert not torch.allclose(both, model.classify(texts=texts).probabilities, atol=1e-7)
    torch.testing.assert_close(both[1:], model.classify(pictures[1], texts[1]).probabilities)
    assert model.classify([]).labels == []
    with pytest.raises(ValueError, match="classify: 4 images and 2 texts are not pairs; give as many of each"):
        model.classify(pictures, texts)
    with pytest.raises(ValueError, match="classify: neither images nor texts are given; give one or both"):
        model.classify()
    model.model.classifier = None
    with pytest.raises(ValueError, match="classify: this model has no classifier; make one with `kaleido-fast finetune CONFIG "
                                         "task=category init.weights=MODEL`"):
        model.classify(pictures)
    assert load_run_config(category_run).finetune.task == "category"
