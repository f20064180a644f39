"""A small run of every task, trained once for all tests of this folder."""

from pathlib import Path

import pytest

from kaleido_fast.config import Config, load_config
from kaleido_fast.finetune.finetune import finetune, prepare_config
from tests.places import REPO
from tests.small import MODEL

STEPS = ("train.micro_batch=16", "train.warmup_steps=1", "train.log_every=1", "train.validation_samples=16",
         "train.validate_every=2", "train.steps=6")


def finetune_config(shards: Path, out: Path, *more: str, resume: bool = False) -> Config:
    """Settings of a small fine-tuning from random weights; `more` are further `key=value`, laid over."""
    config = load_config(REPO / "configs" / "finetune" / "demo.yaml", [
        *MODEL, *STEPS, "init.weights=random", f"data.shards={shards}", f"run.out={out}", *more])
    return prepare_config(config, resume)[0]


@pytest.fixture(scope="session")
def category_run(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run fine-tuned for the category, from random weights, in six steps; read only."""
    out = tmp_path_factory.mktemp("category") / "run"
    assert finetune(finetune_config(tiny_shards, out, "finetune.task=category")) == 0
    return out
