"""Pooled outputs and scores of products: once a photograph, any batch, any input."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from kaleido_fast.data.batches.batch import Batch, HostBatch
from kaleido_fast.data.batches.patches import Pixels
from kaleido_fast.kernels.plan import clean_plan
from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from kaleido_fast.model.settings import KaleidoSettings, ModelSettings, VocabularySettings
from kaleido_fast.tasks.encoding import FeatureRows, PatchRows, PooledEncoder
from kaleido_fast.tasks.products import Products, build_products
from tests.tasks.drawn_products import drawn_products


def _batches(photographs: torch.Tensor, samples: np.ndarray, size: int, broken: int = -1) -> Iterator[Batch]:
    """The samples in batches of `size`, the last filled up with absent rows, as the loader gives them."""
    padded = np.concatenate([samples, np.full(-len(samples) % size, -1)])
    for part in padded.reshape(-1, size):
        ranks, zeros = torch.from_numpy(part), torch.zeros(size, dtype=torch.int64)
        present = (part >= 0) & (part != broken)
        host = HostBatch(part, part, part, np.full(size, 2, np.int32), np.ones(size, bool), present)
        yield Batch(
            patches=Pixels(photographs[part]),
            tokens=zeros[:, None].int(),
            lengths=zeros.int(),
            alignment=zeros[:, None],
            keys=zeros,
            image_products=ranks,
            match=zeros.bool(),
            present=torch.from_numpy(present),
            epochs=zeros,
            host=host,
        )


@pytest.fixture(scope="module")
def products() -> Products:
    return drawn_products()


def _encoder(
    model: KaleidoBertModel, photographs: torch.Tensor, products: Products, precision: str = "fp32"
) -> PooledEncoder:
    rows = PatchRows(model, np.arange(40), _batches(photographs, np.arange(40), 16))
    return PooledEncoder(model, rows, products, empty_text=(2, 3), precision=precision)


def test_rows_are_those_of_the_sample(tiny_model, photographs) -> None:
    """Sample numbers with gaps, over several batches, asked for out of order and twice."""
    wanted = np.array([1, 4, 5, 7, 8, 11, 12, 13, 14, 15, 20, 21, 22, 23, 24, 25, 30, 39])
    rows = PatchRows(tiny_model, wanted, _batches(photographs, wanted, 16, broken=20))
    asked = np.array([39, 1, 20, 39])
    features, source = rows.of(asked)
    assert features.shape[0] == 3
    expected = tiny_model.features(photographs[asked], clean_plan(torch.zeros(4, 1, dtype=torch.int32)))
    torch.testing.assert_close(features.flatten(0, 1)[source.long()], expected)
    assert rows.broken == [20]


def test_rows_of_a_trained_encoder_hold_no_graph(photographs) -> None:
    """Its features have a gradient in training; kept for thousands of photographs they would keep all patches."""
    settings = ModelSettings(hidden=16, layers=1, heads=2, intermediate=16, patch_encoder="linear")
    model = KaleidoBertModel(settings, KaleidoSettings(patch_size=12), VocabularySettings(91, 128), photographs.shape[1])
    features, _ = PatchRows(model, np.arange(20), _batches(photographs, np.arange(20), 16)).of(np.arange(20))
    assert features.shape == (20, 55, 16) and features.any() and not features.requires_grad


@torch.no_grad()
def test_scores_equal_one_pair_at_a_time(tiny_model, photographs, products) -> None:
    """Against the model called by hand: a batch with repeated photographs and ragged texts out of order."""
    samples, texts = np.array([9, 3, 9, 30, 3, 9]), np.array([4, 17, 4, 0, 1, 12])
    scores = _encoder(tiny_model, photographs, products).score(samples, texts)
    for score, sample, text in zip(scores, samples, texts, strict=True):
        length = int(products.lengths[text])
        features = tiny_model.features(photographs[sample][None], clean_plan(torch.zeros(1, 1, dtype=torch.int32)))
        encoded = tiny_model.encode(
            torch.from_numpy(products.tokens[text][None]),
            torch.tensor([length], dtype=torch.int32),
            (length,),
            features,
            torch.arange(55, dtype=torch.int32)[None],
        )
        logits = tiny_model.itm_logits(encoded.pooled)[0]
        assert score == pytest.approx(float(logits[1] - logits[0]), rel=1e-4, abs=1e-5)
    assert len(set(np.round(scores, 5).tolist())) == 5  # rows 0 and 2 are the same pair


def test_image_alone_reads_no_word_and_text_alone_no_pixel(tiny_model, photographs, products) -> None:
    encoder = _encoder(tiny_model, photographs, products)
    changed = _encoder(tiny_model, 255 - photographs, products)
    samples, texts = np.array([0, 8, 5]), np.array([2, 6, 7])
    assert torch.equal(encoder.pooled(None, texts), changed.pooled(None, texts))
    assert not torch.allclose(encoder.pooled(samples, None), changed.pooled(samples, None))
    assert not torch.allclose(encoder.pooled(samples, None), encoder.pooled(samples, texts))
    empty = build_products(
        np.ones(1), np.ones(1), np.zeros(1), np.ones(1), np.array([[2, 3]], np.int32), np.array([2], np.int32)
    )
    by_hand = _encoder(tiny_model, photographs, empty).pooled(samples, np.zeros(3, np.int64))
    torch.testing.assert_close(encoder.pooled(samples, None), by_hand)


def test_bf16_is_near_fp32_and_not_the_same(tiny_model, photographs, products) -> None:
    samples, texts = np.arange(10), np.arange(10)
    full = _encoder(tiny_model, photographs, products).pooled(samples, texts)
    half = _encoder(tiny_model, photographs, products, "bf16").pooled(samples, texts)
    assert half.dtype == torch.float32
    assert 0 < (full - half).abs().max() < 0.2


def test_a_photograph_that_was_not_encoded_is_named() -> None:
    rows = FeatureRows(np.array([2, 5]), torch.zeros(2, 55, 3))
    assert rows.of(np.array([5, 5]))[0].shape == (1, 55, 3)
    for sample in (3, 9):
        with pytest.raises(AssertionError, match=rf"photographs that were not encoded: \[{sample}\]"):
            rows.of(np.array([2, sample]))
