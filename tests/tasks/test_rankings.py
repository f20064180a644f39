"""Three rankings of the same candidates: against single pairs in float64, by hand, and from evaluate to the report."""

import copy
import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from kaleido_fast.config import Config
from kaleido_fast.kernels.plan import clean_plan
from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from kaleido_fast.model.settings import KaleidoSettings, ModelSettings, VocabularySettings
from kaleido_fast.report.html import write_report
from kaleido_fast.settings import as_yaml
from kaleido_fast.tasks.encoding import FeatureRows, PooledEncoder
from kaleido_fast.tasks.evaluate import evaluate
from kaleido_fast.tasks.measures import headline
from kaleido_fast.tasks.products import Products, build_products
from kaleido_fast.tasks.rankings import cosine_scores, rank_candidates, shown_first
from kaleido_fast.tasks.retrieval import ComparedPairs, draw_retrieval
from kaleido_fast.tasks.retrieval_measure import RETRIEVAL, SLICES
from tests.tasks.drawn_products import drawn_products

NAMES = ("itm", "itc", "both")


@pytest.fixture(scope="module")
def model() -> KaleidoBertModel:
    torch.manual_seed(3)
    settings = ModelSettings(hidden=32, layers=2, heads=2, intermediate=64, initializer_range=0.2, itc_dim=8)
    model = KaleidoBertModel(settings, KaleidoSettings(patch_size=12), VocabularySettings(91, 128), 60)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture(scope="module")
def products() -> Products:
    """Of 19 texts, in two sub-categories."""
    return drawn_products(2, equal=(19, 0))


class _Single:
    """One photograph and one text at a time, in float64."""

    def __init__(self, model: KaleidoBertModel, features: torch.Tensor, products: Products) -> None:
        self.model, self.features, self.products = copy.deepcopy(model).double(), features.double(), products
        self.positions = torch.arange(55, dtype=torch.int32)[None]

    def scores(self, sample: int, product: int) -> dict[str, float]:
        model, length = self.model, int(self.products.lengths[product])
        tokens, lengths = torch.from_numpy(self.products.tokens[[product], :length]), torch.tensor([length], dtype=torch.int32)
        features, frame = self.features[[sample]], torch.tensor([[2, 3]], dtype=torch.int32)
        logits = model.itm_logits(model.encode(tokens, lengths, [length], features, self.positions).pooled)[0]
        photograph = model.encode(frame, frame[:, 0], [2], features, self.positions).sequence[:1]
        text = model.encode(tokens, lengths, [length], features[:0], self.positions[:, :0], levels=()).sequence[:1]
        photograph, text = photograph @ model.contrast.photograph.weight.T, text @ model.contrast.text.weight.T
        cosine = float(torch.nn.functional.cosine_similarity(photograph, text)[0])
        matching = float(logits[1] - logits[0])
        return {"itm": matching, "itc": cosine, "both": matching + cosine / float(torch.exp(-model.contrast.log_scale))}


@torch.no_grad()
def test_rankings_equal_single_pairs_in_float64(model, products, photographs) -> None:
    plan = clean_plan(torch.zeros(len(photographs), 1, dtype=torch.int32))
    features = model.features(photographs, plan)
    encoder = PooledEncoder(model, FeatureRows(np.arange(40), features), products, empty_text=(2, 3), precision="fp32")
    draws = draw_retrieval(products, num_queries=3, num_draws=2, seed=0)
    ranked = rank_candidates(products, draws, encoder, batch_pairs=7, contrast=True)
    assert tuple(ranked) == NAMES
    single, ranks = _Single(model, features, products), {name: [] for name in NAMES}
    for number, draw in enumerate(draws):
        for row, query in enumerate(draw.queries):
            candidates = draw.candidates[row][draw.present[row]]
            for way, compared in (("itr", [(query, other) for other in candidates]),
                                  ("tir", [(other, query) for other in candidates])):
                scores = [single.scores(int(products.samples(np.array([image]), draw.photos)[0]), text)
                          for image, text in compared]
                for name in NAMES:
                    found, expected = getattr(ranked[name], way)[number], np.array([values[name] for values in scores])
                    np.testing.assert_allclose(found.scores[row, : len(expected)], expected, rtol=1e-4, atol=1e-5)
                    rank = 1 + sum(not other < expected[0] for other in expected[1:])
                    assert found.ranks[row] == rank
                    ranks[name].append(rank)
    assert ranks["itm"] != ranks["itc"] != ranks["both"] != ranks["itm"]
    fewer = rank_candidates(products, draws, encoder, batch_pairs=7, contrast=True, matching_queries=2)
    for name, rows in (("itm", [0, 1]), ("itc", [0, 1, 2]), ("both", [0, 1])):
        for way in ("itr", "tir"):
            for some, every in zip(getattr(fewer[name], way), getattr(ranked[name], way), strict=True):
                assert np.array_equal(some.draw.queries, every.draw.queries[rows]), name
                np.testing.assert_allclose(some.scores, every.scores[rows], rtol=1e-4, atol=1e-5)


def test_what_is_shown_first_ranks_most_queries() -> None:
    assert shown_first({"itm": 20, "itc": 20, "both": 20}) == ["itm", "itc", "both"]
    assert shown_first({"itm": 8, "itc": 20, "both": 8}) == ["itm", "both", "itc"] and shown_first({"itm": 3}) == ["itm"]


class _Given:
    """Embeddings in a plane, and how often each was asked for."""

    def __init__(self, photographs: list[list[float]], texts: list[list[float]]) -> None:
        self.sides = {"photograph": torch.tensor(photographs), "text": torch.tensor(texts)}
        self.asked: list[tuple[str, int]] = []

    def _of(self, side: str, numbers: np.ndarray) -> torch.Tensor:
        self.asked += [(side, int(number)) for number in numbers]
        return self.sides[side][torch.from_numpy(numbers)]

    def embed_photographs(self, samples: np.ndarray) -> torch.Tensor:
        return self._of("photograph", samples)

    def embed_texts(self, products: np.ndarray) -> torch.Tensor:
        return self._of("text", products)


def test_cosine_ranks_by_hand() -> None:
    """Photographs at 0 and 90 degrees and at 0 again, texts at 0, 45 and 90: a tie counts against the right one."""
    half = 0.5**0.5
    ones, tokens = np.ones(3, np.int64), np.array([[7, 0], [8, 9], [5, 6]], np.int32)
    three = build_products(ones, ones, np.arange(3), ones, tokens, np.array([1, 2, 2], np.int32))
    given = _Given([[1, 0], [0, 1], [1, 0]], [[1, 0], [half, half], [0, 1]])
    pairs = ComparedPairs(three, draw_retrieval(three, num_queries=3, num_draws=2, seed=0))
    for batch in (1, 2, 64):
        given.asked.clear()
        result = pairs.ranked(cosine_scores(pairs, three, given, batch))
        assert result.itr[0].ranks.tolist() == [1, 2, 3] and result.itr[1].ranks.tolist() == [1, 2, 3]
        assert result.tir[0].ranks.tolist() == [2, 3, 3]
        assert sorted(given.asked) == [(side, number) for side in ("photograph", "text") for number in range(3)]


@pytest.fixture(scope="module")
def contrasting(small_config: Config, small_model: KaleidoBertModel) -> tuple[Config, KaleidoBertModel]:
    """The small configuration and model with contrast; all other weights are those of the model without."""
    config = dataclasses.replace(
        small_config, model=dataclasses.replace(small_config.model, itc_dim=8),
        train=dataclasses.replace(small_config.train, task_weights={"itc": 2.0}))
    torch.manual_seed(2)
    model = KaleidoBertModel(config.model, config.kaleido, small_model.vocabulary, small_model.image_size)
    model.load_state_dict(small_model.state_dict(), strict=False)
    return config, model.eval()


def test_evaluate_ranks_three_ways_and_the_rest_stays(
    contrasting: tuple[Config, KaleidoBertModel], small_config: Config, small_model: KaleidoBertModel, tmp_path: Path
) -> None:
    config, model = contrasting
    numbers, examples = evaluate(model, config, {"retrieval": RETRIEVAL})
    before, _ = evaluate(small_model, small_config, {"retrieval": RETRIEVAL})
    assert {key: numbers[key] for key in before} == before
    assert numbers.keys() - before.keys() == set(RETRIEVAL.further) - {SLICES}
    assert numbers["itc_temperature"] == pytest.approx(0.07)
    for name in ("itc", "both"):
        itr, tir = numbers[f"itr_{name}"], numbers[f"tir_{name}"]
        assert itr["R@100"] >= itr["R@10"] and (itr["queries"], itr["candidates"]) == (20, before["itr"]["candidates"])
        assert numbers[f"sum_r_{name}"] == pytest.approx(
            100 * sum(one[f"R@{k}"] for one in (itr, tir) for k in (1, 5, 10)))
    line = headline(numbers)
    shown = ", ".join(f"{key.upper()} R@1 {100 * numbers[key + '_both']['R@1']:.1f} % R@10 "
                      f"{100 * numbers[key + '_both']['R@10']:.1f} %" for key in ("itr", "tir"))
    assert line.startswith(f"{shown} by matching and cosine (ITM + ITC), R@1 by matching (ITM) ")
    assert f"cosine (ITC) {100 * numbers['itr_itc']['R@1']:.1f} % / {100 * numbers['tir_itc']['R@1']:.1f} % (1 in" in line
    for example in examples["itr"] + examples["tir"]:
        assert example["ranking"] == "both"
    for name, text in (("eval.json", numbers), ("examples.json", examples)):
        (tmp_path / name).write_text(json.dumps(text))
    (tmp_path / "config.yaml").write_text(as_yaml(config))
    write_report(tmp_path)
    page = re.sub(r"<[^>]*>", " ", (tmp_path / "report.html").read_text())
    for part in ("image to text (ITR), by matching and cosine (ITM + ITC)", "text to image (TIR), by cosine (ITC)",
                 "ITM + cosine / temperature, 0.070", "numbers are scores by matching and cosine (ITM + ITC)",
                 f"{numbers['sum_r_both']:.1f} by matching and cosine", "by matching and cosine (ITM + ITC); R@10"):
        assert part in page, part


def test_heads_that_are_not_trained_rank_nothing(contrasting: tuple[Config, KaleidoBertModel]) -> None:
    config, model = contrasting
    off = dataclasses.replace(config, train=dataclasses.replace(config.train, task_weights={}))
    numbers, examples = evaluate(model, off, {"retrieval": RETRIEVAL})
    assert not numbers.keys() & set(RETRIEVAL.further) and "ranking" not in examples["itr"][0]
