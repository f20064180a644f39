"""The loss of the two colour tasks: ours, and as the authors' code has it (SPEC 3).

    ours:            KL(softmax(target) || softmax(prediction)), unclipped: the operation `softmax_kl`
    kl_clip:         sum_f q_f ln(q_f / p_f), both probabilities clipped to [1e-7, 1]; no gradient where p was clipped
    joint softmax:   q is one softmax over a sample's targets joined, so that each row of it sums to less than one
"""

import torch
from torch import Tensor

from kaleido_fast.kernels.softmax_kl import softmax_kl

LEAST = 1e-7  # probability, under kl_clip


def color_loss(prediction: Tensor, target: Tensor, *, clip: bool = False, num_joined: int = 1) -> Tensor:
    """(M,) loss of each row, in fp32 (float64 where a logit is); differentiable in the prediction.

    Args:
        prediction, target: (M, F) logits, bf16, fp32 or float64.
        clip: clip both probabilities, as the authors do.
        num_joined: so many rows in a row share one softmax of the targets; M is a multiple of it.
    """
    if not clip and num_joined == 1:
        return softmax_kl(prediction, target, torch.ones(len(prediction), device=prediction.device))
    dtype = torch.promote_types(torch.promote_types(prediction.dtype, target.dtype), torch.float32)
    joined = target.to(dtype).reshape(-1, num_joined * target.shape[1])
    if clip:
        q = joined.softmax(dim=1).view(target.shape).clamp(LEAST, 1)
        p = prediction.to(dtype).softmax(dim=1).clamp(LEAST, 1)
        return (q * (q / p).log()).sum(dim=1)
    log_q, log_p = joined.log_softmax(dim=1).view(target.shape), prediction.to(dtype).log_softmax(dim=1)
    return (log_q.exp() * (log_q - log_p)).sum(dim=1)
