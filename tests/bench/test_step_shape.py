"""The shapes that need no YAML are those of configs/*.yaml."""

from dataclasses import replace

import pytest
import torch

from kaleido_fast.bench.step_shape import SHAPES, Shape
from kaleido_fast.config import load_config
from tests.places import CONFIGS
from tests.small import WITHOUT_CONTRAST

ALONE = (*WITHOUT_CONTRAST, "train.micro_batch=32")  # the paper's losses, as the baselines have them


@pytest.mark.parametrize("name", list(SHAPES))
def test_a_shape_is_its_config(name: str) -> None:
    ours, theirs = SHAPES[name], Shape.of(load_config(CONFIGS / f"{name}.yaml", ALONE if name == "demo" else ()))
    weights, attention = ours.model.patch_encoder_weights, ours.model.attention  # drawn; chosen by the device
    assert ours.model == replace(theirs.model, patch_encoder_weights=weights, attention=attention, compile=ours.model.compile)
    assert ours.kaleido == theirs.kaleido and ours.reference == theirs.reference
    assert (ours.train.micro_batch, ours.train.accumulation) == (theirs.train.micro_batch, theirs.train.accumulation)
    for field in ("image_size", "max_tokens", "store_dtype"):
        assert getattr(ours.data, field) == getattr(theirs.data, field)


def test_a_cpu_and_a_gpu_run_what_they_can() -> None:
    cpu, gpu = (SHAPES["large"].on(torch.device(device)) for device in ("cpu", "cuda"))
    assert (cpu.model.attention, cpu.train.precision, cpu.run.device) == ("sdpa", "fp32", "cpu")
    assert (gpu.train.precision, gpu.run.device, gpu.train.zero_stage) == ("bf16", "cuda", 0)
    assert gpu.model.attention == "auto" and not cpu.model.compile, "what is installed need not run"
    assert SHAPES["base"].with_batch(64, 2).train.accumulation == 2
