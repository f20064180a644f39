"""Drawn shards and their drawn store: what `pretrain` opens under model.features=stored."""

from pathlib import Path

import numpy as np
import torch

from kaleido_fast.bench.session.drawn_store import draw_shards, draw_store
from kaleido_fast.bench.step_shape import Shape
from kaleido_fast.config import load_config
from kaleido_fast.data.batches.loader import Loader
from kaleido_fast.data.shards.split import Split
from kaleido_fast.training.stores.open import open_source
from tests.places import REPO


def test_a_drawn_store_fills_whole_batches(tmp_path: Path) -> None:
    shards, store = tmp_path / "shards", tmp_path / "store"
    config = load_config(REPO / "configs" / "demo.yaml", [
        f"data.shards={shards}", f"data.store={store}", "model.features=stored", "model.hidden=32", "model.heads=2",
        "model.intermediate=64", "model.layers=1",
    ])
    draw_shards(shards, Shape.of(config), 48)
    draw_store(config, store)
    split = Split.open(shards, "train")
    loader = Loader(open_source(config, split), config.data, seed=0, micro_batch=48, device=torch.device("cpu"))
    batch = next(loader)
    assert loader.holes == {} and batch.host.present.all()
    assert np.array_equal(np.sort(batch.host.samples), np.arange(48))
    assert batch.patches.packed.any(dim=-1).all()
