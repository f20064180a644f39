"""AuthorsAdam against its formula in float64; tests/parity holds it against the authors' own steps."""

import pytest
import torch
from torch import Tensor, nn

from kaleido_fast.training.authors_adam import AuthorsAdam
from kaleido_fast.training.engine import build_optimizer
from kaleido_fast.training.settings import TrainSettings
from kaleido_fast.training.step import ClippedAdamW, parameter_groups

LR, BETAS, EPS, DECAY = 0.1, (0.9, 0.98), 1e-2, 0.1  # an epsilon that matters


class Net(nn.Module):
    """A matrix, a bias, a norm and a vector that is neither."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.dense, self.norm, self.segment = nn.Linear(5, 7), nn.LayerNorm(7), nn.Parameter(torch.randn(7))


def _set_grads(model: nn.Module, scale: float, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in model.parameters():
        parameter.grad = scale * torch.randn(parameter.shape, generator=generator)


def _formula(weights: dict[str, Tensor], grads: list[dict[str, Tensor]], max_norm: float) -> dict[str, Tensor]:
    """The weights after these gradients, in float64."""
    (b1, b2), w = BETAS, {name: value.double() for name, value in weights.items()}
    m, v = ({name: torch.zeros_like(value) for name, value in w.items()} for _ in range(2))
    for t, gradient in enumerate(grads, start=1):
        norm = torch.stack([g.double().square().sum() for g in gradient.values()]).sum().sqrt()
        divisor = max(float(norm) / max_norm, 1.0) if max_norm else 1.0
        rate = LR * (1 - b2**t) ** 0.5 / (1 - b1**t)
        for name, g in gradient.items():
            g = g.double() / divisor
            m[name] = b1 * m[name] + (1 - b1) * g
            v[name] = b2 * v[name] + (1 - b2) * g**2
            decay = 0.0 if "norm" in name or "bias" in name else DECAY
            w[name] = w[name] - rate * (m[name] / (v[name].sqrt() + EPS) + decay * w[name])
    return w


def _optimizer(kind: type[ClippedAdamW], model: nn.Module, max_norm: float | None) -> ClippedAdamW:
    groups = parameter_groups(model, DECAY, vectors_decay=True)
    return kind(groups, max_norm=max_norm, lr=LR, betas=BETAS, eps=EPS)


@pytest.mark.parametrize("scale", [1e-2, 10.0])
@pytest.mark.parametrize("max_norm", [0.5, 0.0, None])
def test_equals_its_formula(scale: float, max_norm: float | None) -> None:
    model = Net()
    start, grads = {name: p.detach().clone() for name, p in model.named_parameters()}, []
    optimizer = _optimizer(AuthorsAdam, model, max_norm)
    for step in range(4):
        _set_grads(model, scale, step)
        grads.append({name: p.grad.clone() for name, p in model.named_parameters()})
        optimizer.step()
    expected = _formula(start, grads, max_norm or 0.0)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.double(), expected[name], rtol=2e-6, atol=2e-6)
    assert {float(optimizer.state[p]["step"]) for p in model.parameters()} == {4.0}


def test_is_not_torchs_adam() -> None:
    ours, theirs = Net(), Net()
    _set_grads(ours, 1e-2, 0), _set_grads(theirs, 1e-2, 0)
    _optimizer(AuthorsAdam, ours, 0.0).step(), _optimizer(ClippedAdamW, theirs, 0.0).step()
    assert not torch.allclose(ours.dense.weight, theirs.dense.weight, rtol=0.01)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_step_that_is_not_finite_moves_nothing_and_counts_for_nothing(bad: float) -> None:
    model, undisturbed = Net(), Net()
    optimizer, other = _optimizer(AuthorsAdam, model, 1.0), _optimizer(AuthorsAdam, undisturbed, 1.0)
    for step in range(3):
        _set_grads(model, 1.0, step)
        if step == 1:
            before = [p.detach().clone() for p in model.parameters()]
            model.dense.weight.grad[0, 0] = bad
        optimizer.step()
        if step == 1:
            assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
            continue
        _set_grads(undisturbed, 1.0, step)
        other.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), undisturbed.parameters(), strict=True))


def test_the_segment_row_decays_as_in_their_code_but_biases_and_norms_do_not() -> None:
    model = Net()
    decayed, spared = parameter_groups(model, DECAY, vectors_decay=True)
    assert {id(p) for p in decayed["params"]} == {id(model.dense.weight), id(model.segment)}
    assert len(spared["params"]) == 3 and spared["weight_decay"] == 0.0


def test_the_config_chooses() -> None:
    chosen = {name: build_optimizer(Net(), TrainSettings(optimizer=name)) for name in ("adamw", "authors")}
    assert type(chosen["adamw"]) is ClippedAdamW and type(chosen["authors"]) is AuthorsAdam
    assert build_optimizer(Net(), TrainSettings(optimizer="authors", zero_stage=1)).max_norm is None
