"""Checks of the engine that need no run: called by test_engine.py in one process and by worker_program.py in several."""

import torch
from torch import nn

from kaleido_fast.training.engine import Engine
from kaleido_fast.training.settings import RunSettings, TrainSettings

STAGES = (0, 1, 2, 3)


class Toy(nn.Module):
    """Two layers and a norm; the loss is what it returns."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.Linear(16, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x).float().square().sum()


def toy_engine(stage: int, num_workers: int, **settings) -> Engine:
    torch.manual_seed(0)
    train = TrainSettings(micro_batch=16, zero_stage=stage, learning_rate=0.1, **settings)
    return Engine(Toy(), train, RunSettings(device="cpu"), num_workers)


def step(engine: Engine, seed: int, bad: bool = False) -> None:
    x = torch.randn(16, 8, generator=torch.Generator().manual_seed(seed))
    dtype = next(engine.module.parameters()).dtype
    loss = engine(x.to(dtype))
    engine.backward(loss * float("nan") if bad else loss)
    engine.step(0.1)


def moving_parts(engine: Engine) -> dict[str, torch.Tensor]:
    """Weights, moments and step counts, as this worker holds them."""
    parts = dict(engine.weights())
    for number, state in enumerate(engine.optimizer.state.values()):
        parts |= {f"{number}.{key}": torch.as_tensor(value).detach().clone() for key, value in state.items()}
    return parts


def check_that_a_bad_step_moves_nothing(stage: int, precision: str, rank: int, num_workers: int, **settings) -> None:
    """The gradient of the last worker alone is not a number: on all workers nothing may move, and the next step must."""
    engine = toy_engine(stage, num_workers, precision=precision, **settings)
    step(engine, seed=rank)
    before = moving_parts(engine)
    assert any(".exp_avg" in name for name in before), list(before)
    assert not engine.skipped
    step(engine, seed=10 + rank, bad=rank == num_workers - 1)
    assert engine.skipped
    after = moving_parts(engine)
    assert not torch.isfinite(torch.tensor(engine.grad_norm())), f"stage {stage}: norm {engine.grad_norm()}"
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    assert not moved, f"stage {stage} {precision}: {moved} moved in a step that was not finite"
    step(engine, seed=20 + rank)
    assert not engine.skipped
    assert torch.isfinite(torch.tensor(engine.grad_norm()))
    later = moving_parts(engine)
    still = [name for name in before if torch.equal(later[name], before[name]) and before[name].numel()]
    assert not still, f"stage {stage} {precision}: {still} did not move in a good step"
    engine.destroy()


def grad_norm(stage: int, rank: int, num_workers: int, seeds: int) -> float:
    """The norm of the gradient of `seeds` micro-batches, shared out among the workers."""
    engine = toy_engine(stage, num_workers, accumulation=seeds // num_workers, clip_norm=0.5)
    for seed in range(rank, seeds, num_workers):
        step(engine, seed)
    norm = engine.grad_norm()
    engine.destroy()
    return norm


def plain_grad_norm(seeds: int) -> float:
    """The same without an engine."""
    torch.manual_seed(0)
    module = Toy()
    for seed in range(seeds):
        module(torch.randn(16, 8, generator=torch.Generator().manual_seed(seed))).backward()
    return float(torch.nn.utils.get_total_norm([p.grad for p in module.parameters()]))
