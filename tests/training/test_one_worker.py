"""One worker at stage 0 has the whole gradient: DeepSpeed neither flattens nor reduces it, and the weights move alike."""

from pathlib import Path
from typing import Any

import deepspeed
import pytest
import torch
from torch import Tensor, nn

from kaleido_fast.training.engine import Engine
from kaleido_fast.training.pretrain import pretrain
from kaleido_fast.training.settings import RunSettings, TrainSettings
from kaleido_fast.training.workers.group import start_workers
from tests.small import small_config
from tests.training import engine_cases as cases

OF_REDUCTION = ("buffered_allreduce_fallback", "allreduce_no_retain", "allreduce_and_copy", "allreduce_bucket")
OF_A_CHECKPOINT = 2  # times that saving one compares its name among the workers


class WithOneUnused(cases.Toy):
    """Its last layer is in no loss, so that its gradient is never made."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Linear(4, 4)


@pytest.fixture
def reduced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which functions that bring gradients together were called."""
    start_workers("cpu", 60)
    called: list[str] = []

    def note(owner: Any, name: str) -> None:
        function = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *inputs, **options: (called.append(name), function(*inputs, **options))[1])

    for name in OF_REDUCTION:
        note(deepspeed.DeepSpeedEngine, name)
    note(torch.distributed, "all_reduce")
    return called


def trained(accumulation: int, precision: str, reducing: bool) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Losses of six micro-batches, and what the engine holds then.

    Args:
        reducing: whether DeepSpeed brings the gradient together, as it does for several workers.
    """
    torch.manual_seed(0)
    settings = TrainSettings(
        micro_batch=16, learning_rate=0.1, weight_decay=0.1, accumulation=accumulation, precision=precision)
    engine = Engine(WithOneUnused(), settings, RunSettings(device="cpu"), 1)
    engine._engine.enable_backward_allreduce = reducing
    losses = []
    for seed in range(6):
        loss = engine(torch.randn(16, 8, generator=torch.Generator().manual_seed(seed)))
        engine.backward(loss)
        engine.step(0.1)
        losses.append(loss.detach())
    state = cases.moving_parts(engine)
    engine.destroy()
    return losses, state


def test_a_run_reduces_nothing(tiny_shards: Path, tmp_path: Path, reduced: list[str]) -> None:
    assert pretrain(small_config(tiny_shards, tmp_path / "run", "train.steps=2")) == 0
    assert reduced == ["all_reduce"] * OF_A_CHECKPOINT


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_losses_weights_and_moments_are_the_same(reduced: list[str], accumulation: int, precision: str) -> None:
    losses, state = trained(accumulation, precision, reducing=False)
    assert reduced == []
    wanted_losses, wanted_state = trained(accumulation, precision, reducing=True)
    assert set(reduced) == {*OF_REDUCTION, "all_reduce"}
    assert list(map(float, losses)) == list(map(float, wanted_losses))
    assert state.keys() == wanted_state.keys()
    assert all(torch.equal(state[name], wanted_state[name]) for name in state)
    before = WithOneUnused().unused.weight.detach()
    assert not torch.equal(state["unused.weight"], before), "what no loss reached decays"


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_other_stages_bring_the_gradient_together(stage: int) -> None:
    """Their optimizer takes it flat, also of one worker."""
    engine = cases.toy_engine(stage, 1)
    assert engine._engine.enable_backward_allreduce
    engine.destroy()
