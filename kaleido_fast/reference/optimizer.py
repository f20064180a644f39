"""Clipping and the optimizers, the plain way (SPEC 8)."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


def clip_(parameters: Iterable[nn.Parameter], limit: float) -> Tensor:
    """g <- g / max(|g| / limit, 1) with |g| the norm over all gradients, which is returned; a limit of 0 clips nothing."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
    if limit > 0:
        for gradient in gradients:
            gradient.div_((norm / limit).clamp(min=1))
    return norm


def reference_parameter_groups(model: nn.Module, weight_decay: float, *, authors: bool = False) -> list[dict[str, Any]]:
    """Norms, biases, contrast's scale and the text's segment do not decay; under the authors' rule the segment does."""
    spared = ("norm", "bias", "log_scale") if authors else ("norm", "bias", "log_scale", "text.segment")
    decaying: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decaying[not any(part in name for part in spared)].append(parameter)
    return [{"params": decaying[True], "weight_decay": weight_decay}, {"params": decaying[False], "weight_decay": 0.0}]


def adamw(groups: Any, lr: float, betas: tuple[float, float], eps: float) -> torch.optim.Optimizer:
    """torch's AdamW, one parameter after the other."""
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps, foreach=False, fused=False)


class ReferenceAuthorsAdam(torch.optim.Optimizer):
    """The authors' Adam: epsilon stands outside the bias correction.

    w <- w - lr sqrt(1 - b2^t) / (1 - b1^t) (m / (sqrt(v) + eps) + decay w), t from 1.
    """

    def __init__(self, groups: Any, lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # nobody has a closure to call
        """One update of every parameter that has a gradient; no closure is called."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, weight.grad, group)

    def _update(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, (b1, b2) = self.state[weight], group["betas"]
        if not state:
            state |= {"t": 0, "m": torch.zeros_like(weight), "v": torch.zeros_like(weight)}
        state["t"] += 1
        state["m"] = b1 * state["m"] + (1 - b1) * gradient
        state["v"] = b2 * state["v"] + (1 - b2) * gradient.square()
        rate = group["lr"] * (1 - b2 ** state["t"]) ** 0.5 / (1 - b1 ** state["t"])
        step = state["m"] / (state["v"].sqrt() + group["eps"]) + group["weight_decay"] * weight
        weight.sub_(rate * step)


OPTIMIZERS = {"adamw": adamw, "authors": ReferenceAuthorsAdam}  # as train.optimizer names them
