"""A trained model from whatever folder holds one, and the device it goes to: what the Python API and the verbs load by."""

from pathlib import Path

import torch

from kaleido_fast.config import load_run_config
from kaleido_fast.data.preprocessing import PREPROCESSING
from kaleido_fast.devices import exact_device
from kaleido_fast.model.attention.packed import AUTO
from kaleido_fast.model.pretrained import Pretrained, is_exported, load_exported
from kaleido_fast.training.export import load_run
from kaleido_fast.training.run.folder import RunFolder


def load_model(folder: Path, step: int | None = None, shards: str | Path | None = None) -> Pretrained:
    """Of an exported folder, or of a run's; arguments and errors as `KaleidoBert.from_pretrained` has them."""
    if is_exported(folder):
        if step is not None:
            raise ValueError(f"{folder}: an exported model has one step alone; give step={step} with a run's folder")
        if shards is not None:
            raise ValueError(f"{folder}: an exported model has its vocabulary; give shards={shards} with a run's folder")
        return load_exported(folder, attention=AUTO)
    if RunFolder(folder).config_file.is_file():
        overrides = [] if shards is None else [f"data.shards={shards}"]
        return load_run(folder, load_run_config(folder, overrides, needs_shards=True).data, step, attention=AUTO)
    what = f"no {PREPROCESSING} and no config.yaml there" if folder.is_dir() else "no such folder"
    raise ValueError(f"{folder}: {what}; give a folder that `kaleido-fast export` wrote, or a run's")


def device_named(name: str) -> torch.device:
    """The device of a name; raises ValueError where it is not there."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device={name}: unknown; use cpu, or cuda for a GPU") from None
    count = torch.cuda.device_count() if device.type == "cuda" else 0
    if device.type == "cuda" and not (device.index or 0) < count:  # cuda alone is one of those that are there
        raise ValueError(f"device={name}: not there, {count} CUDA devices were found; use cpu")
    return exact_device(device)
