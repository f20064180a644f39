"""summary.json: what a run was made of and what it left out."""

import dataclasses
import platform
from typing import Any

import numpy as np
import torch

from kaleido_fast.data.batches.from_store import EncodedPhotographs
from kaleido_fast.data.shards.split import Split
from kaleido_fast.training.settings import StepConfig

LISTED = 100  # holes named one by one; the rest are counted


def describe_run(
    config: StepConfig, split: Split, progress: dict[str, Any], holes: dict[str, str], num_workers: int,
    store: EncodedPhotographs | None = None, attention_kernels: str = "",
) -> dict[str, Any]:
    """Progress, data (with skipped rows and holes), what was picked, versions."""
    manifest, progress = split.manifest, dict(progress)
    init = progress.pop("init")
    return {
        "progress": progress,
        "data": {
            "fingerprint": manifest.fingerprint,
            "train_samples": split.num_samples,
            "train_products": split.num_products,
            "skipped": manifest.skipped_counts,
            "num_holes": len(holes),
            "holes": dict(list(holes.items())[:LISTED]),
            **({} if manifest.features is None else {"features": dataclasses.asdict(manifest.features)}),
            **({} if store is None else {"store": {"folder": str(store.folder), **dataclasses.asdict(store.header)}}),
        },
        "picked": {
            "device": config.run.device,
            "attention": config.model.attention,
            "attention_kernels": attention_kernels,
            "compile": config.model.compile,
            "features": config.model.features,
            "patch_encoder": config.model.patch_encoder,
            "patch_encoder_weights": config.model.patch_encoder_weights,
            "init": init,
            "zero_stage": config.train.zero_stage,
            "precision": config.train.precision,
            "workers": num_workers,
            "samples_per_step": config.train.micro_batch * config.train.accumulation * num_workers,
            "threads": torch.get_num_threads(),
        },
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
    }
