"""A model of random weights with contrast, and an index of the small shards that it made."""

from pathlib import Path

import pytest
import torch

from kaleido_fast.model.pretrained import load_exported
from kaleido_fast.search.build import build_index
from kaleido_fast.search.encoder import Encoder
from kaleido_fast.search.index import KaleidoIndex
from kaleido_fast.search.sources import ShardProducts
from kaleido_fast.training.workers.group import Workers
from tests.exported import exported_model

CPU = torch.device("cpu")
ALONE = Workers(0, 1)


@pytest.fixture(scope="session")
def search_model(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported_model(tmp_path_factory.mktemp("search") / "model", tiny_shards, itc_dim=8)


@pytest.fixture(scope="session")
def encoder(search_model: Path) -> Encoder:
    return Encoder(load_exported(search_model), CPU, batch_size=16)


@pytest.fixture(scope="session")
def index_folder(tiny_shards: Path, encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of all products of the small shards; read only."""
    out = tmp_path_factory.mktemp("index") / "index"
    build_index(encoder, ShardProducts(tiny_shards), out, ALONE)
    return out


@pytest.fixture(scope="session")
def index(index_folder: Path) -> KaleidoIndex:
    return KaleidoIndex.open(index_folder)
