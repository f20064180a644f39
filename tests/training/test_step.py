"""ClippedAdamW against torch's own parts, and the parameter groups."""

import pytest
import torch
from torch import nn

from kaleido_fast.training.step import ClippedAdamW, parameter_groups


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.Linear(7, 3))


def _grads(model: nn.Module, scale: float) -> None:
    torch.manual_seed(1)
    for parameter in model.parameters():
        parameter.grad = scale * torch.randn_like(parameter)


@pytest.mark.parametrize("scale", [1e-3, 10.0])
@pytest.mark.parametrize("max_norm", [0.5, 0.0])
def test_equals_clipping_and_adamw(scale: float, max_norm: float) -> None:
    ours, theirs = _model(), _model()
    fast = ClippedAdamW(parameter_groups(ours, 0.1), max_norm=max_norm, lr=0.1)
    plain = torch.optim.AdamW(parameter_groups(theirs, 0.1), lr=0.1)
    for _ in range(3):
        _grads(ours, scale), _grads(theirs, scale)
        norm = torch.nn.utils.get_total_norm([p.grad for p in theirs.parameters()])
        if max_norm:
            for parameter in theirs.parameters():
                parameter.grad /= max(float(norm) / max_norm, 1.0)
        fast.step(), plain.step()
        assert float(fast.grad_norm) == pytest.approx(float(norm), rel=1e-6)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_step_that_is_not_finite_moves_nothing(bad: float) -> None:
    model = _model()
    optimizer = ClippedAdamW(parameter_groups(model, 0.1), max_norm=1.0, lr=0.1)
    _grads(model, 1.0)
    optimizer.step()
    before = [p.detach().clone() for p in model.parameters()]
    steps = [float(optimizer.state[p]["step"]) for p in model.parameters()]
    _grads(model, 1.0)
    next(model.parameters()).grad[0, 0] = bad
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert steps == [float(optimizer.state[p]["step"]) for p in model.parameters()]


def test_biases_and_norms_do_not_decay() -> None:
    model = _model()
    decayed, plain = parameter_groups(model, 0.1)
    assert {id(p) for p in decayed["params"]} == {id(model[0].weight), id(model[2].weight)}
    assert len(plain["params"]) == 4 and plain["weight_decay"] == 0.0
