"""softmax_kl: the loss of the two colour tasks, a row at a time (SPEC 3).

    loss_m = w_m * sum_f q_mf (log q_mf - log p_mf),  q = softmax(target_m), p = softmax(prediction_m)
    d loss_m / d prediction_m = w_m (p_m - q_m)

No temperature, from log-softmax, unclipped. fp32 arithmetic, float64 for float64. A target of -inf has no share of the
row (0 log 0 = 0); a prediction of -inf where the target has a share makes the row's loss +inf. A row of weight 0 is 0,
its gradient too, whatever it holds.
"""

import torch
from torch import Tensor


def softmax_kl_reference(prediction: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Plain version: (M,) weighted loss and (M, F) gradient, which the forward pass hands to the backward."""
    work = torch.float64 if prediction.dtype == torch.float64 else torch.float32
    log_p, log_q = prediction.to(work).log_softmax(-1), target.to(work).log_softmax(-1)
    q = log_q.exp()
    terms = torch.where(q > 0, q * (log_q - log_p), 0)
    counted = weight != 0
    scale = weight.to(work)
    loss = torch.where(counted, scale * terms.sum(-1), 0)
    gradient = torch.where(counted[:, None], scale[:, None] * (log_p.exp() - q), 0)
    return loss, gradient.to(prediction.dtype)


@torch.library.custom_op("kaleido_fast::softmax_kl", mutates_args=(), device_types="cpu")
def _softmax_kl(prediction: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return softmax_kl_reference(prediction, target, weight)


@_softmax_kl.register_fake
def _(prediction, target, weight):  # noqa: ANN001, ANN202
    work = torch.float64 if prediction.dtype == torch.float64 else torch.float32
    return prediction.new_empty(prediction.shape[0], dtype=work), torch.empty_like(prediction)


def _setup(ctx, inputs, output) -> None:  # noqa: ANN001
    ctx.save_for_backward(output[1])


def _backward(ctx, dloss: Tensor, _: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN001
    (gradient,) = ctx.saved_tensors
    return (gradient * dloss[:, None]).to(gradient.dtype), None, None


_softmax_kl.register_autograd(_backward, setup_context=_setup)


def softmax_kl(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weighted KL(softmax(target) || softmax(prediction)) of each row, not reduced.

    Args:
        prediction: (M, F) bf16, fp32 or float64; the gradient flows here only.
        target: (M, F).
        weight: (M,) fp32: the loss weight over the number of rows, 0 for a row that does not count.
    Returns:
        (M,) fp32 (float64 for float64).
    Raises:
        ValueError: the shapes do not fit.
    """
    if prediction.dim() != 2 or prediction.shape != target.shape:
        raise ValueError(
            f"softmax_kl: prediction {tuple(prediction.shape)} and target {tuple(target.shape)} must both be (M, F)"
        )
    if weight.shape != prediction.shape[:1]:
        raise ValueError(f"softmax_kl: weight {tuple(weight.shape)} must be (M,) = ({prediction.shape[0]},)")
    loss, _ = _softmax_kl(prediction, target.detach(), weight)
    return loss
