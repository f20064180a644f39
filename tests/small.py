"""The small model that tests train: what configs/demo.yaml says without contrast, over which its settings are laid."""

from pathlib import Path

from kaleido_fast.config import Config, load_config
from tests.places import DEMO

PATCHES = ("data.image_size=60", "kaleido.patch_size=12")
WITHOUT_CONTRAST = ("model.itc_dim=0", "train.task_weights.itc=0", "data.itm_negatives=random")
MODEL = (*PATCHES, *WITHOUT_CONTRAST, "model.layers=1", "model.hidden=32", "model.intermediate=64")
RUN = (*MODEL, "train.minutes=0", "train.micro_batch=16", "train.warmup_steps=1", "train.log_every=1",
       "train.validation_samples=16")


def small_config(shards: Path, out: Path, *more: str) -> Config:
    """Settings of a small run over `shards` into `out`; `more` are further `key=value`."""
    return load_config(DEMO, [*RUN, f"data.shards={shards}", f"run.out={out}", *more])
