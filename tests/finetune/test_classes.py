"""Category and sub-category: what is shown, what is learned from it, and how it is measured."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score

from kaleido_fast.cli import main
from kaleido_fast.config import load_run_config
from kaleido_fast.data.batches.batch import Batch
from kaleido_fast.data.batches.loader import Loader
from kaleido_fast.data.batches.upload import Upload
from kaleido_fast.data.shards.split import Split
from kaleido_fast.finetune.confusion import largest_mistakes
from kaleido_fast.finetune.inputs import BOTH, IMAGE, TEXT, GivenEncoder, drawn_inputs, with_words
from kaleido_fast.finetune.table import DOWNSTREAM
from kaleido_fast.kernels.philox import philox
from kaleido_fast.kernels.plan import clean_plan
from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from kaleido_fast.model.weights import load_weights
from kaleido_fast.report.html import write_report
from kaleido_fast.training.checkpoint import chosen_checkpoint
from kaleido_fast.training.stores.open import open_source


@pytest.fixture(scope="module")
def batch(category_run: Path) -> Batch:
    config = load_run_config(category_run)
    source = open_source(config, Split.open(config.data.shards, "train"))
    return next(Loader(source, config.data, seed=0, micro_batch=16, device=torch.device("cpu"), position=32, draw_text=False))


@pytest.fixture(scope="module")
def model(category_run: Path) -> KaleidoBertModel:
    return load_weights(chosen_checkpoint(category_run) / "weights")


@pytest.fixture(scope="module")
def evaluated(category_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """A copy of the run that was evaluated, and a line for each product."""
    run = tmp_path_factory.mktemp("evaluated") / "run"
    shutil.copytree(category_run, run)
    file = run.parent / "products.jsonl"
    assert main(["evaluate", str(run), "--per-sample", str(file)]) == 0
    return run, [json.loads(line) for line in file.read_text().splitlines()]


def test_inputs_are_drawn_by_the_words_of_the_spec(batch: Batch) -> None:
    rows, epochs = batch.host.rows, batch.host.epochs
    assert rows is not None and epochs is not None
    for seed in (0, 5 + (3 << 32)):
        drawn = drawn_inputs(batch, seed)
        for row, number in enumerate(drawn.tolist()):
            key = int(rows["key"][row])
            word = philox(seed & 0xFFFFFFFF, seed >> 32, *(torch.tensor(part) for part in (
                0, int(epochs[row]) * 16 + 5, key & 0xFFFFFFFF, key >> 32)))[0]
            assert number == int(word) * 3 >> 32
    many = np.concatenate([drawn_inputs(batch, seed) for seed in range(200)])
    assert np.abs(np.bincount(many) / len(many) - 1 / 3).max() < 0.03  # 3,200 draws: 3.6 standard deviations


def test_without_a_word_the_photograph_alone_is_shown(batch: Batch) -> None:
    given = np.full(16, BOTH)
    batch.host.lengths[3], kept = 2, batch.host.lengths[3]
    try:
        assert np.flatnonzero(with_words(given, batch) == IMAGE).tolist() == [3]
    finally:
        batch.host.lengths[3] = kept


@pytest.mark.parametrize("given", [[IMAGE] * 16, [TEXT] * 16, [IMAGE, TEXT, BOTH, BOTH] * 4])
def test_a_mixed_batch_gives_what_each_sample_gives_alone(batch: Batch, model: KaleidoBertModel, given: list[int]) -> None:
    frame = (int(batch.tokens[0, 0]), int(batch.tokens[0, batch.host.lengths[0] - 1]))
    with torch.no_grad():
        pooled, arrays = GivenEncoder(model, frame).pooled(
            batch, np.array(given), None, Upload(torch.device("cpu")), {"place": np.arange(16)})
        features = batch.clean_features(model, model.kaleido.grids, 16)
        rows = {}
        for place, kind in enumerate(given):
            tokens = batch.tokens[place : place + 1].clone()
            length = int(batch.host.lengths[place]) if kind != IMAGE else 2
            if kind == IMAGE:
                tokens[0, :2] = torch.tensor(frame)
            own = features[place : place + 1] if kind != TEXT else features[:0]
            source = clean_plan(tokens, model.kaleido.grids).source if kind != TEXT else torch.empty(1, 0, dtype=torch.int32)
            rows[place] = model.encode(tokens, torch.tensor([length], dtype=torch.int32), [length], own, source,
                                       levels=None if kind != TEXT else (), tasks=()).pooled[0]
    counted = arrays["counts"].tolist()
    assert sorted(place for place, counts in zip(arrays["place"].tolist(), counted, strict=True) if counts) == list(range(16))
    for row, place, counts in zip(pooled, arrays["place"].tolist(), counted, strict=True):
        assert not counts or torch.allclose(row, rows[place], atol=1e-5)
    assert len(pooled) == 16 + (len(set(given)) == 1)


def test_figures_are_those_of_scikit_learn(evaluated: tuple[Path, list[dict[str, Any]]]) -> None:
    run, products = evaluated
    report = json.loads((run / "eval.json").read_text())
    labels = [product["category"] for product in products]
    assert len(labels) == report["category_classifier"]["products"] > 10
    for given in ("image", "text", "both"):
        predicted = [product[given]["predicted"] for product in products]
        figures = report["category"][given]
        assert figures["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
        assert figures["macro_f1"] == pytest.approx(
            f1_score(labels, predicted, average="macro", labels=sorted(set(labels)), zero_division=0))
        assert figures["most_frequent"] == max(labels.count(name) for name in labels) / len(labels)
    assert report["checkpoint"] == chosen_checkpoint(run).name and report["split"] == "test"
    assert report["data_fingerprint"] == json.loads((Path(load_run_config(run).data.shards) / "manifest.json").read_text())[
        "fingerprint"]


def test_the_report_shows_right_and_wrong_products(evaluated: tuple[Path, list[dict[str, Any]]]) -> None:
    run, products = evaluated
    assert "category of" in write_report(run)
    page = (run / "report.html").read_text()
    for shown in ("<h2>Category</h2>", "The largest mistakes, from the photograph alone", "Wrong, the surest first",
                  "Right, evenly spread", 'alt="rows: what products are; columns: what they are taken for"'):
        assert shown in page, shown
    wrong = [one for one in products if one["image"]["predicted"] != one["category"]]
    surest = max(wrong, key=lambda one: one["image"]["probability"])
    assert f"{surest['id']}: is {surest['category']}" in page


def test_classes_that_training_lacks_are_named_and_wrong(
    evaluated: tuple[Path, list[dict[str, Any]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, products = evaluated
    shards = tmp_path / "shards"
    shutil.copytree(load_run_config(run).data.shards, shards)
    manifest = json.loads((shards / "manifest.json").read_text())
    most = max({one["category"] for one in products}, key=[one["category"] for one in products].count)
    manifest["categories"] = ["New" if name == most else name for name in manifest["categories"]]
    (shards / "manifest.json").write_text(json.dumps(manifest))
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    assert main(["evaluate", str(copy), f"data.shards={shards}"]) == 0
    report = json.loads((copy / "eval.json").read_text())
    number = [one["category"] for one in products].count(most)
    assert report["category_classifier"]["unseen"] == {"New": number}
    right = sum(one["image"]["predicted"] == one["category"] != most for one in products)
    assert report["category"]["image"]["accuracy"] == pytest.approx(right / len(products))
    write_report(copy)
    assert f"{number} products are of 1 classes that training lacks, counted as wrong: New ({number})" in (
        copy / "report.html").read_text()


def test_one_class_alone_is_refused(category_run: Path) -> None:
    config = load_run_config(category_run)
    split = Split.open(config.data.shards, "train")
    split.products = split.products.copy()
    split.products["category"] = 1
    with pytest.raises(ValueError, match="finetune.task=category: all products of split 'train' of .* have the one category "
                                         "'.*', so there is nothing to tell apart; give a catalogue of two or more"):
        DOWNSTREAM["category"].check(config, split, split)


def test_largest_mistakes_by_hand() -> None:
    labels, predicted = np.array([0, 0, 0, 1, 1, 2, 3]), np.array([1, 1, 0, 0, 1, 2, 2])
    assert largest_mistakes(predicted, labels, "abcd") == {
        "pairs": [{"is": "a", "taken_for": "b", "products": 2}, {"is": "b", "taken_for": "a", "products": 1},
                  {"is": "d", "taken_for": "c", "products": 1}],
        "classes": ["a", "b", "d", "c"],
        "counts": [[1, 2, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 1, 0]]}
    assert largest_mistakes(labels, labels, "abcd") == {}
