"""summary.json: what a run was made of and what it left out."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from kaleido_fast.data.batches.source import BatchSource
from kaleido_fast.model.attention.packed import PickedAttention
from kaleido_fast.training.settings import StepConfig

LISTED = 100  # holes named one by one; the rest are counted


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What does not change while a run lasts."""

    config: StepConfig
    source: BatchSource
    num_workers: int
    attention: PickedAttention
    earlier: Sequence[dict[str, Any]] = ()  # how the processes ended that the run goes on from

    def describe(self, progress: dict[str, Any], holes: dict[str, str], ended: dict[str, Any]) -> dict[str, Any]:
        """Progress, how the run ended, data (with skipped rows and holes), what was picked, versions.

        Args:
            holes: samples that could not be read, and why.
            ended: "how" (running, done, stopped, lost, failed) and, of a run that was lost or failed, "why".
        """
        config, split, manifest = self.config, self.source.split, self.source.split.manifest
        init = progress["init"]
        return {
            "progress": {key: value for key, value in progress.items() if key != "init"},
            "ended": ended,
            "earlier": list(self.earlier),
            "data": {
                "fingerprint": manifest.fingerprint,
                "train_samples": split.num_samples,
                "train_products": split.num_products,
                "skipped": manifest.skipped_counts,
                "num_holes": len(holes),
                "holes": dict(list(holes.items())[:LISTED]),
                **self.source.describe(),
            },
            "picked": {
                "device": config.run.device,
                "attention": self.attention.name,
                "attention_kernels": self.attention.kernels,
                "why_no_other_attention": self.attention.why_no_other,
                "compile": config.model.compile,
                "features": config.model.features,
                "patch_encoder": config.model.patch_encoder,
                "patch_encoder_weights": config.model.patch_encoder_weights,
                "init": init,
                "zero_stage": config.train.zero_stage,
                "precision": config.train.precision,
                "workers": self.num_workers,
                "samples_per_step": config.train.samples_per_step(self.num_workers),
                "threads": torch.get_num_threads(),
            },
            "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        }
