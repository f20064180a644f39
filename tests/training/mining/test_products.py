"""Products are embedded by the lowest photograph that can be read; without one they keep their text."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from kaleido_fast.data.batches.from_photographs import FromPhotographs
from kaleido_fast.data.batches.loader import evaluation_batches
from kaleido_fast.data.shards.split import Split
from kaleido_fast.training.build import build_step
from kaleido_fast.training.mining.lists import EmbeddedProducts
from kaleido_fast.training.mining.products import embed_products
from kaleido_fast.training.step import PretrainStep
from kaleido_fast.training.workers.group import Workers
from tests.small import small_config

MINED = ("model.itc_dim=16", "train.itc_block=16", "train.task_weights.itc=2", "data.itm_negatives=mined",
         "data.itm_hard_share=0.5", "model.initializer_range=0.2", "model.dropout=0.5")


class PlainEngine:
    """What mining asks of an engine."""

    def __init__(self, module: PretrainStep) -> None:
        self.module = module

    def __call__(self, *inputs: object) -> object:
        return self.module(*inputs)

    def weights(self, part: torch.nn.Module) -> dict[str, torch.Tensor]:
        return part.state_dict()


def _break(split: Split, sample: int) -> None:
    """Overwrite the middle of a photograph in its shard."""
    shard, row = split.locate(sample)
    with (split.folder / f"{split.shards[shard]}.tar").open("r+b") as file:
        file.seek(int(row["offset"]) + int(row["length"]) // 2)
        file.write(b"\xff" * 16)


@pytest.fixture(scope="module")
def shards(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(tiny_shards, tmp_path_factory.mktemp("shards") / "shards")


def test_the_lowest_photograph_that_can_be_read_and_the_text(shards: Path, tmp_path: Path) -> None:
    split, config = Split.open(shards, "train"), small_config(shards, tmp_path, *MINED)
    count, first = split.products["num_samples"], split.products["first_sample"]
    second, whole = (int(product) for product in np.flatnonzero(count > 1)[:2])  # loses its first; loses all
    for sample in (first[second], *range(first[whole], first[whole] + count[whole])):
        _break(split, int(sample))
    torch.manual_seed(0)
    step = build_step(config, split.manifest)
    source = FromPhotographs(split)
    products = embed_products(PlainEngine(step), source, config, Workers(0, 1))  # type: ignore[arg-type]
    assert step.training and products.scale == pytest.approx(1 / 0.07) and products.photographs.shape == (len(count), 16)
    assert products.has_text.all()
    assert np.flatnonzero(~products.has_photograph).tolist() == [whole]

    expected = first.copy()
    expected[second] += 1
    keys = split.rows(expected)["key"].view(np.int64)
    readable = products.has_photograph
    assert (products.keys[readable] == keys[readable]).all()
    _assert_embedded(products, step.eval(), source, expected, config.data)


@torch.no_grad()
def _assert_embedded(
    products: EmbeddedProducts, step: PretrainStep, source: FromPhotographs, samples: np.ndarray, data: object
) -> None:
    """Each as the model embeds it, in other batches."""
    model, readable = step.model, products.has_photograph
    vocabulary = source.split.manifest.vocabulary
    order, start = np.argsort(-np.arange(len(samples))), 0
    for batch in evaluation_batches(source, samples[order], data, seed=0, micro_batch=32, device=torch.device("cpu"),
                                    draw_text=False):
        ranks = order[start : start + 32]
        start += 32
        features = batch.clean_features(model, model.kaleido.grids, len(ranks))
        photographs = model.embed_photographs(features, (vocabulary.cls_id, vocabulary.sep_id))
        texts = model.embed_texts(batch.tokens, batch.lengths, batch.host.lengths.tolist())[: len(ranks)]
        whole = torch.from_numpy(readable[ranks])
        torch.testing.assert_close(products.photographs[ranks][whole], photographs[whole])
        torch.testing.assert_close(products.texts[ranks][whole], texts[whole])  # a hole's batch has no text
        assert not products.photographs[ranks][~whole].any()
        assert products.texts[ranks].norm(dim=1).allclose(torch.ones(len(ranks)))
