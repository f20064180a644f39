"""The products of a split: their texts are the loader's, equal texts share a number."""

from pathlib import Path

import numpy as np
import torch

from kaleido_fast.data.batches.from_photographs import FromPhotographs
from kaleido_fast.data.batches.loader import evaluation_batches
from kaleido_fast.data.settings import DataSettings
from kaleido_fast.data.shards.split import Split
from kaleido_fast.tasks.products import build_products, read_products


def test_texts_equal_the_loaders(small_shards: Path) -> None:
    split = Split.open(small_shards, "test")
    for max_tokens in (8, 64):  # cut, and longer than any text
        products = read_products(split, max_tokens)
        settings = DataSettings(shards=str(small_shards), image_size=60, max_tokens=max_tokens)
        batches = evaluation_batches(
            FromPhotographs(split),
            np.arange(split.num_samples),
            settings,
            seed=0,
            micro_batch=16,
            device=torch.device("cpu"),
            draw_text=False,
        )
        seen = 0
        for batch in batches:
            here = batch.host.samples >= 0
            ranks = batch.host.image_products[here]
            assert (batch.tokens.numpy()[here] == products.tokens[ranks]).all()
            assert (batch.host.lengths[here] == products.lengths[ranks]).all()
            seen += int(here.sum())
        assert seen == split.num_samples == products.num_photos.sum()


def test_photographs_belong_to_their_product(small_shards: Path) -> None:
    split = Split.open(small_shards, "test")
    products = read_products(split, 16)
    last = products.samples(np.arange(len(products)), products.num_photos - 1)
    for samples in (products.first_sample, last):
        assert (split.rows(samples)["product"] == np.arange(len(products))).all()
    assert (split.rows(last)["photo"] == products.num_photos - 1).all()
    assert products.num_photos.max() == 2
    record = split.record(int(products.first_sample[3]))
    assert split.manifest.categories[products.category[3]] == record["category"]
    assert split.manifest.subcategories[products.subcategory[3]] == record["subcategory"]


def test_equal_texts_share_a_number() -> None:
    tokens = np.array([[1, 2, 0], [1, 3, 4], [1, 2, 0], [1, 3, 5]], np.int32)
    ones = np.ones(4, np.int64)
    products = build_products(ones, ones, ones, ones, tokens, np.array([2, 3, 2, 3], np.int32))
    assert products.text[0] == products.text[2]
    assert len(set(products.text.tolist())) == 3
    assert (tokens[products.first_of_text[products.text]] == tokens).all()
