"""Steps on a drawn batch: they train, and say what they did."""

import pytest
import torch

from kaleido_fast.bench.training_steps import StepScale, bench_steps
from kaleido_fast.model.settings import KaleidoSettings, ModelSettings


def test_ten_small_steps() -> None:
    model = ModelSettings(hidden=32, layers=1, heads=2, intermediate=64)
    scale = StepScale(samples=16, tokens=24, image_size=60, steps=3, profiled=1)
    found = bench_steps(torch.device("cpu"), model, KaleidoSettings(patch_size=8), scale)
    assert found["last_loss"] < found["first_loss"]
    assert 16 * (16 + 55) <= found["packed_rows"] <= 16 * (24 + 55)
    assert found["samples_per_s"] * found["median_ms"] == pytest.approx(16_000)
    assert found["profile"][0]["ms_a_step"] >= found["profile"][-1]["ms_a_step"] > 0
