"""The engine alone on one worker: a step that is not finite, gradient norms, what it unpickles. test_workers.py has more."""

import pickle
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from kaleido_fast.training.engine import Engine, build_optimizer, saved_state
from kaleido_fast.training.settings import RunSettings, TrainSettings
from kaleido_fast.training.workers.group import start_workers
from tests.training import engine_cases as cases


@pytest.fixture(autouse=True)
def group() -> None:
    start_workers("cpu", 60)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("stage", cases.STAGES)
def test_a_step_that_is_not_finite_moves_nothing(stage: int, precision: str) -> None:
    cases.check_that_a_bad_step_moves_nothing(stage, precision, rank=0, num_workers=1)


@pytest.mark.parametrize("stage", cases.STAGES)
def test_the_authors_adam_does_the_same_at_every_stage(stage: int) -> None:
    """Against the optimizer alone, clipping; DeepSpeed's clipping adds 1e-6 to the norm. A bad step moves nothing."""
    settings = {"optimizer": "authors", "clip_norm": 0.5, "betas": (0.9, 0.98), "eps": 1e-2}
    cases.check_that_a_bad_step_moves_nothing(stage, "fp32", rank=0, num_workers=1, **settings)
    engine = cases.toy_engine(stage, 1, **settings)
    torch.manual_seed(0)
    module = cases.Toy()
    plain = build_optimizer(module, TrainSettings(learning_rate=0.1, **settings))
    for seed in range(4):
        cases.step(engine, seed)
        plain.zero_grad()
        module(torch.randn(16, 8, generator=torch.Generator().manual_seed(seed))).backward()
        plain.step()
    for name, value in engine.weights().items():
        torch.testing.assert_close(value, module.state_dict()[name], rtol=1e-4, atol=1e-5)
    engine.destroy()


@pytest.mark.parametrize("stage", cases.STAGES)
def test_the_gradient_norm_is_that_before_clipping(stage: int) -> None:
    assert cases.grad_norm(stage, rank=0, num_workers=1, seeds=4) == pytest.approx(cases.plain_grad_norm(4), rel=1e-6)


class Stranger:
    """What unpickles to a call."""

    def __reduce__(self) -> tuple:
        return print, ("a stranger's code ran",)


def test_a_checkpoint_with_more_than_tensors_is_not_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine = cases.toy_engine(0, 1)
    engine.save(tmp_path, "step", {"step": 1})
    file = tmp_path / "step" / "mp_rank_00_model_states.pt"
    torch.save(torch.load(file, weights_only=False) | {"extra": Stranger()}, file, pickle_module=pickle)
    with pytest.raises(ValueError, match="step: holds more than tensors and plain values, not loaded"):
        engine.load(tmp_path, "step")
    with pytest.raises(ValueError, match="step: holds more than tensors and plain values, not loaded"):
        saved_state(tmp_path / "step", RunSettings(device="cpu"))
    assert "stranger" not in capsys.readouterr().out


def test_torch_is_left_as_it_is() -> None:
    """DeepSpeed's groups give up in time, its files are loaded safely, and torch's functions are torch's."""
    functions = (torch.distributed.new_group, torch.load)
    engine = cases.toy_engine(1, 1)
    assert functions == (torch.distributed.new_group, torch.load)
    assert all(function.__module__.startswith("torch.") for function in functions)
    engine.destroy()


def test_groups_of_deepspeed_give_up_in_time() -> None:
    import deepspeed

    engine = Engine(cases.Toy(), TrainSettings(micro_batch=16, zero_stage=1), RunSettings(device="cpu", timeout_s=47), 1)
    group = deepspeed.comm.new_group([0])
    assert group._get_backend(torch.device("cpu")).options._timeout == timedelta(seconds=47)
    engine.destroy()
