"""The training step: forward, losses, clipped AdamW. torch and the kernels alone; engine.py hands it to DeepSpeed."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


class ClippedAdamW(torch.optim.AdamW):
    """torch's fused AdamW that clips by the global norm and skips a step that is not finite, both on the device.

    g <- g / max(|g| / max_norm, 1); where |g| is not finite nothing moves, the step count neither. Nothing waits for
    the device: the fused kernel takes the divisor as grad_scale and the verdict as found_inf.

    Args:
        max_norm: limit of the global norm; 0: skip only, no clipping; None: neither (from stage 1 on, where each
            worker holds a part of the gradient, both are DeepSpeed's).
    """

    def __init__(self, params: Iterable[Any], *, max_norm: float | None, **options: Any) -> None:
        super().__init__(params, fused=True, **options)
        self.max_norm = max_norm
        self.grad_norm: Tensor = torch.zeros(())

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        if self.max_norm is not None:
            grads = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
            self.grad_norm = torch.nn.utils.get_total_norm(grads)
            self.found_inf = (~torch.isfinite(self.grad_norm)).float()
            divisor = self.grad_norm / self.max_norm if self.max_norm > 0 else torch.ones_like(self.grad_norm)
            self.grad_scale = torch.clamp(divisor, min=1.0)
        return super().step(closure)


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups for the optimizer: weight decay on matrices, none on biases and norms (SPEC 8)."""
    groups: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            groups["norm" in name or "bias" in name or parameter.dim() < 2].append(parameter)
    return [{"params": groups[0], "weight_decay": weight_decay}, {"params": groups[1], "weight_decay": 0.0}]
