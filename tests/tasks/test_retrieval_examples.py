"""Retrieval examples: the right one is marked, scores and pictures are those of the candidates."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kaleido_fast.data.batches.batch import Batch
from kaleido_fast.data.batches.from_photographs import FromPhotographs
from kaleido_fast.data.batches.loader import evaluation_batches
from kaleido_fast.data.settings import DataSettings
from kaleido_fast.data.shards.split import Split
from kaleido_fast.tasks.products import read_products
from kaleido_fast.tasks.retrieval import draw_retrieval, retrieve
from kaleido_fast.tasks.retrieval_examples import collect_examples


class MatchScorer:
    """1 for a photograph and a text of one product, below 1 and falling with the ranks for others."""

    def __init__(self, split: Split) -> None:
        self.split = split

    def score(self, samples: np.ndarray, products: np.ndarray) -> np.ndarray:
        owners = self.split.rows(samples)["product"]
        return np.where(owners == products, 1.0, 0.5 - 0.001 * owners - 0.001 * products)


@pytest.fixture(scope="module")
def examples(small_shards: Path) -> dict:
    split = Split.open(small_shards, "test")
    products = read_products(split, 16)
    settings = DataSettings(shards=str(small_shards), image_size=60, max_tokens=16)

    def read(samples: np.ndarray) -> Iterator[Batch]:
        return evaluation_batches(
            FromPhotographs(split), samples, settings, seed=0, micro_batch=16, device=torch.device("cpu"), draw_text=False
        )

    draws = draw_retrieval(products, num_queries=10, num_draws=1, seed=0)
    examples, pictures = collect_examples(
        retrieve(products, draws, MatchScorer(split), 64), products, split, read, 4)
    return examples | {"pictures": pictures}


def test_the_right_one_stands_first_and_is_marked(examples: dict) -> None:
    for example in examples["itr"] + examples["tir"]:
        assert example["rank"] == 1
        assert [one["right"] for one in example["top"]] == [True, False, False, False, False]
        ids = [one["id"] for one in example["top"]]
        assert ids[0] == example["query"]["id"]
        assert len(set(ids)) == 5
        assert ids[1:] == sorted(ids[1:])  # the scorer prefers low ranks, which are low ids
        assert example["top"][0]["score"] == 1.0
        scores = [one["score"] for one in example["top"]]
        assert scores == sorted(scores, reverse=True)
    assert len(examples["itr"]) == len(examples["tir"]) == 4


def test_pictures_are_those_of_the_products(examples: dict) -> None:
    """The colour of a product's photograph is the first word of its text."""
    channels = {"red": 0, "green": 1, "blue": 2}
    seen = 0
    for example in examples["tir"]:
        for one in example["top"]:
            data = base64.b64decode(examples["pictures"][one["picture"]])
            middle = np.asarray(Image.open(io.BytesIO(data)))[72, 72]
            colour = one["text"].split()[0]
            if colour in channels:
                assert middle.argmax() == channels[colour]
                seen += 1
    assert seen > 8


def test_no_examples_need_no_picture(small_shards: Path) -> None:
    split = Split.open(small_shards, "test")
    products = read_products(split, 16)
    draws = draw_retrieval(products, num_queries=2, num_draws=1, seed=0)
    result = retrieve(products, draws, MatchScorer(split), 64)
    assert collect_examples(result, products, split, lambda samples: iter(()), 0) == ({"itr": [], "tir": []}, {})
