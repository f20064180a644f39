"""The authors' Adam: epsilon stands outside the bias correction (their code; SPEC 8).

    n = sqrt(sum of all g^2);  g <- g / max(n / max_norm, 1)
    m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2
    w <- w - a (m / (sqrt(v) + eps) + decay w),  a = lr sqrt(1 - b2^t) / (1 - b1^t)

torch's Adam has sqrt(v / (1 - b2^t)) + eps there: its epsilon acts like eps sqrt(1 - b2^t) here, a tenth of it at first.
"""

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from kaleido_fast.training.step import ClippedAdamW

SETTLED = 1e9  # steps after which no correction is left


class AuthorsAdam(ClippedAdamW):
    """Their update by torch's fused kernel; arguments, clipping and skipped steps as in ClippedAdamW.

    The kernel is given a count of steps at which it corrects nothing any more, and the corrected rate instead; the true
    count is in the state, so that checkpoints are those of ClippedAdamW.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # nobody has a closure to call
        self.measure()
        grad_scale, found_inf = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
        for group in self.param_groups:
            params: list[Tensor] = []
            grads: list[Tensor] = []
            m: list[Tensor] = []
            v: list[Tensor] = []
            steps: list[Tensor] = []
            self._init_group(group, params, grads, m, v, [], steps)
            if not params:
                continue
            torch._foreach_add_(steps, 1)
            beta1, beta2 = group["betas"]
            count = steps[0].double()
            rate = (group["lr"] * torch.sqrt(1 - beta2**count) / (1 - beta1**count)).float()
            adamw(
                params, grads, m, v, [], [torch.full_like(step, SETTLED) for step in steps], fused=True, amsgrad=False,
                beta1=beta1, beta2=beta2, lr=rate, weight_decay=group["weight_decay"], eps=group["eps"], maximize=False,
                grad_scale=grad_scale, found_inf=found_inf,
            )
            if found_inf is not None:
                torch._foreach_sub_(steps, [found_inf.to(steps[0].device)] * len(steps))
