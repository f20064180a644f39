"""Photographs and texts encoded by themselves give the rows that training's packed batch gives."""

from pathlib import Path

import pytest
import torch

from kaleido_fast.data.batches.batch import Batch
from kaleido_fast.data.batches.from_photographs import FromPhotographs
from kaleido_fast.data.batches.loader import Loader
from kaleido_fast.data.shards.split import Split
from kaleido_fast.kernels.plan import clean_plan
from kaleido_fast.training.build import build_step
from kaleido_fast.training.mining.single_sequences import SingleSequences, embed_alone, photograph_rows, text_rows
from kaleido_fast.training.step import PretrainStep, alone_of
from tests.small import small_config


@pytest.fixture(scope="module")
def step_and_batch(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[PretrainStep, Batch]:
    config = small_config(tiny_shards, tmp_path_factory.mktemp("run"), "model.itc_dim=16", "train.task_weights.itc=1",
                          "train.itc_block=16", "model.initializer_range=0.3")
    split = Split.open(tiny_shards, "train")
    torch.manual_seed(0)
    step = build_step(config, split.manifest).eval()
    loader = Loader(FromPhotographs(split), config.data, seed=0, micro_batch=16, device=torch.device("cpu"), own_texts=True)
    return step, next(iter(loader))


def _singles(step: PretrainStep, batch: Batch) -> SingleSequences:
    assert batch.own_texts is not None
    plan, own = clean_plan(batch.tokens, step.model.kaleido.grids), batch.own_texts
    features, _ = batch.patches.features_and_targets(step.model, plan)
    return SingleSequences(features, plan.source, own.tokens, own.lengths, own.lengths_host.tolist())


@torch.no_grad()
def test_rows_are_those_of_the_packed_batch(step_and_batch: tuple[PretrainStep, Batch]) -> None:
    step, batch = step_and_batch
    model, plan, singles = step.model, step.plan_of(batch), _singles(step, batch)
    features, _, unturned = batch.patches.features_with_unturned(model, plan)
    encoded = model.encode(plan.masked_tokens, batch.lengths, batch.host.lengths, features, plan.source, tasks=plan.tasks,
                           alone=alone_of(batch, unturned))
    assert batch.own_texts is not None and not batch.match.all()
    own = batch.own_texts
    frame = torch.stack([own.tokens[:, 0], own.tokens[torch.arange(16), own.lengths.long() - 1]], dim=1)
    torch.testing.assert_close(photograph_rows(model, singles.features, singles.source, frame), encoded.photographs)
    torch.testing.assert_close(text_rows(model, own.tokens, own.lengths, singles.lengths_host), encoded.texts)
    assert encoded.photographs is not None and encoded.photographs.std(dim=0).mean() > 0.01  # and not all alike
    assert model.contrast is not None
    heads, _ = model.contrast(encoded.photographs, encoded.texts)
    torch.testing.assert_close(tuple(embed_alone(model, singles)[0]), tuple(heads))


@torch.no_grad()
def test_embeddings_are_the_heads_of_these_rows_in_their_order(step_and_batch: tuple[PretrainStep, Batch]) -> None:
    step, batch = step_and_batch
    singles = _singles(step, batch)
    embeddings, scale = embed_alone(step.model, singles)
    turned = torch.arange(16).flip(0)
    other, _ = embed_alone(step.model, singles._replace(
        source=singles.source[turned], tokens=singles.tokens[turned], lengths=singles.lengths[turned],
        lengths_host=singles.lengths_host[::-1]))
    torch.testing.assert_close(other.photographs, embeddings.photographs[turned])
    torch.testing.assert_close(other.texts, embeddings.texts[turned])
    torch.testing.assert_close(embeddings.texts.norm(dim=1), torch.ones(16))
    assert float(scale) == pytest.approx(1 / 0.07)
    assert torch.equal(step(singles)[0].texts, embeddings.texts)  # as the engine calls it
