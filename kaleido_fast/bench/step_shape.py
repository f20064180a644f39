"""What the cost of a step depends on: the sections of a config, without YAML and pydantic, for a machine that has torch alone.

SHAPES are those of configs/*.yaml as far as a step's time goes (tests/bench/test_step_shape.py compares them), the demo's
without contrast and in steps of 32; pre-trained weights are drawn, which takes the same time.
"""

import os
import shutil
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch

from kaleido_fast.data.settings import DataSettings
from kaleido_fast.model.attention.packed import AUTO
from kaleido_fast.model.settings import KaleidoSettings, ModelSettings, ReferenceSettings
from kaleido_fast.training.settings import RunSettings, TrainSettings

STORED: dict[str, Any] = {"patch_encoder": "resnet50", "patch_encoder_weights": "random"}


@dataclass(frozen=True, slots=True)
class Shape:
    """Sections of a Config, by the same names, so that what takes a Config and reads these takes a Shape."""

    data: DataSettings = field(default_factory=DataSettings)
    kaleido: KaleidoSettings = field(default_factory=KaleidoSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    reference: ReferenceSettings = field(default_factory=ReferenceSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    run: RunSettings = field(default_factory=RunSettings)

    @classmethod
    def of(cls, config: Any) -> "Shape":
        """That of a config.Config."""
        return cls(**{section.name: getattr(config, section.name) for section in fields(cls)})

    @property
    def device(self) -> torch.device:
        return torch.device(self.run.device)

    def on(self, device: torch.device) -> "Shape":
        """The same as it is timed at stage 0: on a CPU in fp32, eager; on CUDA in bf16 with `installed_ways`."""
        cpu = device.type == "cpu"
        ways: dict[str, Any] = {"attention": "sdpa", "compile": False} if cpu else installed_ways()
        return replace(
            self, run=replace(self.run, device="cpu" if cpu else "cuda"), model=replace(self.model, **ways),
            train=replace(self.train, precision="fp32" if cpu else "bf16", zero_stage=0))

    def with_batch(self, micro_batch: int, accumulation: int = 1) -> "Shape":
        """The same in micro-batches of another size."""
        return replace(self, train=replace(self.train, micro_batch=micro_batch, accumulation=accumulation))


def installed_ways() -> dict[str, Any]:
    """`model.attention` and `model.compile` on CUDA: the best attention that runs there; compiled where g++ is."""
    return {"attention": AUTO, "compile": shutil.which(os.environ.get("CXX", "g++")) is not None}


BF16 = TrainSettings(micro_batch=512, precision="bf16")
SHAPES = {
    "demo": Shape(
        DataSettings(image_size=120, max_tokens=40), KaleidoSettings(patch_size=24),
        ModelSettings(hidden=128, layers=3, heads=4, intermediate=512, dropout=0.0, initializer_range=0.05),
        train=TrainSettings(micro_batch=32), run=RunSettings(device="cpu")),
    "base": Shape(kaleido=KaleidoSettings(patch_size=224), model=ModelSettings(features="stored", **STORED), train=BF16),
    "base_computed": Shape(model=ModelSettings(**STORED), train=BF16),
    "large": Shape(model=ModelSettings(hidden=1024, layers=24, heads=16, intermediate=4096),
                   train=TrainSettings(micro_batch=256, accumulation=2, precision="bf16")),
}
