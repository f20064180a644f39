"""What a run will take: counted by hand, and against the model, the store and the steps that are really made."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks import estimate_memory as program
from kaleido_fast.bench.estimate import _duration, describe_estimate, estimate, look_at, store_bytes
from kaleido_fast.bench.step_memory import Living, step_memory
from kaleido_fast.bench.step_shape import Shape
from kaleido_fast.bench.worker_memory import StateBytes, training_states
from kaleido_fast.cli import main
from kaleido_fast.config import Config, load_config
from kaleido_fast.data.shards.manifest import Vocabulary
from kaleido_fast.data.shards.split import Split
from kaleido_fast.training.build import build_step
from kaleido_fast.training.engine import deepspeed_config
from kaleido_fast.training.settings import TrainSettings
from kaleido_fast.training.stores.encode import encode
from tests.places import CONFIGS, DEMO
from tests.small import MODEL

SMALL = (*MODEL, "model.heads=2", "train.minutes=0", "train.epochs=2", "train.micro_batch=16")
WORDS = Vocabulary(size=100, padded_size=128, pad_id=0, unk_id=1, cls_id=2, sep_id=3, mask_id=4, ordinary_first=5,
                   ordinary_last=99, fingerprint="")


def small(shards: Path | str, *more: str) -> Config:
    return load_config(DEMO, [*SMALL, f"data.shards={shards}", *more])


def followed(*more: str, keep: bool = True, samples: int = 16):
    shape = Shape.of(small("", f"train.micro_batch={samples}", *more))
    return step_memory(shape, WORDS, np.full(samples, 20, np.int32), keep_gradients=keep)


def test_parameters_are_those_of_the_model_that_is_built(tiny_shards: Path) -> None:
    config = small(tiny_shards)
    model = build_step(config, Split.open(tiny_shards, "train").manifest).model
    found = estimate(config, 1).memory.step
    assert found.num_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert found.parameters["encoder"] == sum(parameter.numel() for parameter in model.encoder.parameters())
    assert found.frozen == sum(buffer.numel() * 4 for buffer in model.patch_encoder.buffers())


def test_storages_count_while_they_are_held() -> None:
    with FakeTensorMode() as fake:
        x, w = torch.empty(10, 100), torch.empty(100, 50)
        with fake, Living([x, w], {}) as living:
            view = x.t()
            assert living.now == 0
            y = x @ w  # 2,000 bytes
            z = y.exp()
            assert living.now == 4000 == living.peak
            del y
            assert living.now == 2000
            y = z + 1
            assert living.peak == 4000 and view.shape == (100, 10)
    for casts in (False, True):
        with fake, Living([y], {}, casts=casts) as living:
            low = y.bfloat16()  # 1,000 bytes, and of it 2,000 in fp32 while it is added
            y.add_(low)
            assert living.now == 1000 and living.peak == (3000 if casts else 1000)


def test_activations_grow_with_the_batch_and_shrink_with_the_precision() -> None:
    one, two = followed(), followed(samples=32)
    assert 1.9 < two.forward / one.forward < 2.02
    # gradients as large as activations
    wide = ("model.hidden=512", "model.features=stored", "kaleido.tasks=[]", "model.layers=2")
    kept, freed = followed(*wide), followed(*wide, keep=False)
    assert freed.forward == kept.forward and 0 < kept.peak - freed.peak <= 4 * kept.num_parameters
    halved = followed("train.precision=bf16", "train.zero_stage=1")
    assert 0.5 < halved.forward / one.forward < 0.75  # what is fp32 by definition stays so
    stored = followed("model.features=stored")
    assert stored.batch != one.batch and stored.num_parameters == one.num_parameters


def test_contrast_takes_its_rows_in_memory_and_compute() -> None:
    """Of 75 rows a sample come 57 of the photograph alone and 20 of the text alone."""
    itc = ("model.itc_dim=8", "train.task_weights.itc=2", "train.itc_block=16")
    for features in ("computed", "stored"):
        one, two = (followed(f"model.features={features}", *more) for more in ((), itc))
        assert two.num_parameters - one.num_parameters == 2 * 32 * 8 + 1 and two.batch > one.batch
        assert 1.4 < two.forward / one.forward < (75 + 57 + 20) / 75
    plain, contrasting = (estimate(small("", *more), 1, products=100) for more in ((), itc))
    encoder = contrasting.flops.encoder / plain.flops.encoder
    assert 1.7 < encoder < 2.05 and contrasting.flops.patch_encoder / plain.flops.patch_encoder == pytest.approx(58 / 57)
    assert contrasting.memory.peak > plain.memory.peak


@pytest.mark.parametrize("stage, precision, accumulation, expected", [
    (0, "fp32", 1, StateBytes(4000, 0, 8000, 0, 0, 8000)),  # at the step: 4 P of gradients and as much to reduce
    (0, "bf16", 2, StateBytes(4000, 0, 8000, 4000, 0, 4000)),
    (1, "fp32", 1, StateBytes(4000, 1000, 2000, 0, 4000, 2000)),
    (2, "bf16", 1, StateBytes(2000, 1000, 2000, 0, 2000, 2000)),  # 500 mean, 500 flat, 1,000 of it in fp32
    (2, "bf16", 2, StateBytes(2000, 1000, 2000, 500, 2000, 1500)),
    (3, "fp32", 1, StateBytes(5000, 1000, 2000, 1000, 4000, 1000)),
    (3, "bf16", 1, StateBytes(2500, 1000, 2000, 500, 2000, 1500)),
])
def test_states_by_stage_of_a_thousand_parameters_on_four_workers(
    stage: int, precision: str, accumulation: int, expected: StateBytes
) -> None:
    train = TrainSettings(zero_stage=stage, precision=precision, accumulation=accumulation)
    assert training_states(train, 1000, 4, bucket_is_whole=True) == expected
    assert training_states(train, 1000, 4, bucket_is_whole=False) == replace(expected, bucket=0)


def test_the_reduce_bucket_fits_the_model() -> None:
    for parameters, bucket in ((1000, 1000), (10**9, 500_000_000)):
        config = deepspeed_config(TrainSettings(zero_stage=2), 1, parameters)
        assert config["zero_optimization"] == {"stage": 2, "reduce_bucket_size": bucket}


@pytest.mark.parametrize("dtype", ["fp16", "uint8"])
def test_the_store_is_as_large_as_one_that_is_written(dtype: str, tiny_shards: Path, tmp_path: Path) -> None:
    config = small(tiny_shards, "model.features=stored", f"data.store={tmp_path / 'store'}", f"data.store_dtype={dtype}")
    assert encode(config) == 0
    written = sum(file.stat().st_size for file in (tmp_path / "store").glob("*.features"))
    assert store_bytes(config, look_at(config)) == written > 1e6


def test_a_catalogue_of_another_size_is_scaled(tiny_shards: Path) -> None:
    config = small(tiny_shards)
    own, more = look_at(config), look_at(config, products=600)
    split = Split.open(tiny_shards, "train")
    assert own.samples == split.num_samples and own.lengths.max() <= config.data.max_tokens
    assert more.photographs == 10 * own.photographs and more.samples == 10 * own.samples
    assert look_at(small(""), photographs=500).photographs == 500


def test_speed_and_days_at_a_stated_peak(tiny_shards: Path) -> None:
    found = estimate(small(tiny_shards, "model.features=stored"), 2, tflops=100.0)
    expected = 0.40 * 100e12 / found.flops.model
    assert found.flops.patch_encoder == 0 and found.speed.samples_per_s == pytest.approx(expected)
    assert found.samples_seen == 2 * found.catalogue.samples
    text = describe_estimate(found)
    assert f"speed       {2 * expected:,.0f} samples/s on 2 workers, assumed: 40% of 100 TFLOP/s" in text
    assert " for " in text and "store " in text and "uint8" not in text
    computed = estimate(small(tiny_shards), 1, tflops=100.0)
    seconds = computed.flops.model / 40e12 + computed.flops.patch_encoder / 20e12
    assert computed.speed.samples_per_s == pytest.approx(1 / seconds) and computed.store_bytes == 0
    assert [_duration(value) for value in (5, 90, 7200, 864000)] == ["5 seconds", "1.5 minutes", "2 hours", "10 days"]


def test_the_verb_measures_here(tiny_shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["estimate", str(DEMO), *SMALL, f"data.shards={tiny_shards}"]
    assert main([*arguments, "--measure"]) == 0
    text = capsys.readouterr().out
    assert "measured here (cpu" in text and "GFLOP a sample" in text and "a worker at the most" in text
    assert main([*arguments, "--measure", "--tflops", "5"]) == 2
    assert "give one of the two" in capsys.readouterr().err
    assert main([*arguments, "--workers", "0"]) == 2
    assert "at least one worker" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="shows what is said without a CUDA device")
def test_a_gpu_that_is_not_there_is_not_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["estimate", str(CONFIGS / "base.yaml"), "--measure"]) == 2
    assert "run.device=cuda, but no CUDA device was found; give --tflops, or for a CPU run.device" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("settings", [(), ("train.zero_stage=2", "train.precision=bf16", "train.accumulation=2")])
def test_memory_is_what_deepspeed_takes(settings: tuple[str, ...]) -> None:
    found = program.measure("demo", 1, settings, program.OWN_PAGES)
    assert abs(found["error"]) < program.BOUND, found
