"""Which source a split's batches come from, by the settings and by what the shards hold."""

from pathlib import Path

import pytest

from kaleido_fast.authors.feature_batches import FromFeatureFiles
from kaleido_fast.authors.prepare_tsv import KaleidoTsvOptions, prepare_kaleido_tsv
from kaleido_fast.config import Config, build_config
from kaleido_fast.data.batches.from_photographs import FromPhotographs
from kaleido_fast.data.shards.split import Split
from kaleido_fast.training.stores.open import open_source
from tests.places import GOLDEN


@pytest.fixture(scope="module")
def feature_split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    out = tmp_path_factory.mktemp("authors") / "shards"
    prepare_kaleido_tsv(KaleidoTsvOptions((GOLDEN / "kaleido_bert_small.tsv",), out, processes=1))
    return Split.open(out, "train")


def _config(features: str, *more: str) -> Config:
    return build_config({}, [f"model.features={features}", "run.device=cpu", "model.attention=sdpa", "train.steps=1", *more])


def test_computed_features_come_from_photographs(tiny_shards: Path) -> None:
    source = open_source(_config("computed"), Split.open(tiny_shards, "train"))
    assert isinstance(source, FromPhotographs) and source.split.name == "train" and source.describe() == {}


def test_features_in_the_shards_are_read_there(feature_split: Split) -> None:
    source = open_source(_config("stored", "model.patch_encoder=none", "model.patch_features=96"), feature_split)
    assert isinstance(source, FromFeatureFiles) and source.split is feature_split
    assert source.describe()["features"]["num_features"] == 96


def test_photographs_that_are_not_there_are_refused(feature_split: Split) -> None:
    with pytest.raises(ValueError, match="shards: model.features=computed needs photographs; these shards hold the features"):
        open_source(_config("computed"), feature_split)
    with pytest.raises(ValueError, match="shards: the loader needs photographs; these shards hold the features of the authors' "
                                         "pretraining files alone"):
        FromPhotographs(feature_split)
