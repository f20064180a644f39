"""The line about a GPU that waits for its host: when it comes, what it says, and that it agrees with the counted FLOPs."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from kaleido_fast.bench.flops import expected_rows, step_flops
from kaleido_fast.config import Config, load_config
from kaleido_fast.training import start
from kaleido_fast.training.progress import Progress
from kaleido_fast.training.run.host_bound import Device, host_bound_line, sample_flops
from kaleido_fast.training.start import Earlier
from tests.places import CONFIGS

H100 = SimpleNamespace(name="NVIDIA H100 80GB HBM3", major=9, minor=0, multi_processor_count=132)
A100 = SimpleNamespace(name="NVIDIA A100-SXM4-80GB", major=8, minor=0, multi_processor_count=108)


def config_of(name: str, *settings: str) -> Config:
    return load_config(CONFIGS / f"{name}.yaml", list(settings))


def test_what_it_says_of_small_micro_batches() -> None:
    """62.2 GFLOP a sample of 119 rows, 40 % of 989 TFLOP/s: 10 ms; 12 layers and what is around them: 18 ms."""
    said = host_bound_line(config_of("base", "train.micro_batch=64"), H100)
    assert said == (
        "train.micro_batch=64: estimated, a micro-batch keeps NVIDIA H100 80GB HBM3 busy for 10 ms, and the host needs 18 ms "
        "to launch it, so the GPU waits for 45% of a step; from train.micro_batch=128 on it does not: take fewer GPUs or more "
        "samples a step")
    assert not host_bound_line(config_of("base", "train.micro_batch=128"), H100)


def test_contrast_keeps_a_device_busy_for_its_single_sequences_too() -> None:
    """119 rows, and alone 57 and 64: about twice the work, so that 96 samples suffice."""
    contrast = ["model.itc_dim=256", "train.task_weights.itc=2"]
    assert not host_bound_line(config_of("base", "train.micro_batch=64", *contrast), H100)
    assert "busy for 10 ms" in host_bound_line(config_of("base", "train.micro_batch=32", *contrast), H100)


@pytest.mark.parametrize("name, settings, device", [
    ("base", [], H100),  # 512 samples
    ("large", ["model.features=stored", "train.micro_batch=64"], H100),
    ("base", ["train.micro_batch=64"], A100),
    ("base", ["train.micro_batch=64", "train.precision=fp32"], H100),
    ("base_computed", ["train.micro_batch=64"], H100),  # the patch encoder keeps it busy too
    ("base", ["train.micro_batch=64"], SimpleNamespace(name="unknown", major=7, minor=5, multi_processor_count=40)),
])
def test_where_nothing_is_said(name: str, settings: list[str], device: Device) -> None:
    assert host_bound_line(config_of(name, *settings), device) == ""


def test_the_products_are_those_that_are_counted() -> None:
    config = config_of("base")
    lengths = np.full(8, config.data.max_tokens, np.int32)
    rows = expected_rows(config.kaleido, (), lengths)
    counted = step_flops(config.model, config.kaleido, 30522, lengths, rows)
    assert 8 * sample_flops(config.model, config.data.max_tokens + 55) == pytest.approx(counted.encoder)
    assert counted.encoder > 0.9 * counted.model


@pytest.mark.parametrize("device, is_said", [("cuda", True), ("cpu", False)])
def test_a_start_on_a_gpu_says_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], device: str, is_said: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda asked: H100)
    workers = SimpleNamespace(count=8, device=torch.device(device))
    progress = Progress(batch=512, shards="", alignment="")
    start._tell(config_of("base", "train.micro_batch=64"), progress, Earlier(), workers, "xformers")
    assert ("from train.micro_batch=128 on" in capsys.readouterr().err) == is_said
