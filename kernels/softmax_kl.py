"""softmax_kl: the loss of the two colour tasks, row by row (SPEC 3).

    loss = weight * sum_f p_f (log p_f - log q_f),   p = softmax(target), q = softmax(prediction), 0 log 0 = 0
    d loss / d prediction = weight * (q - p)

From log-softmax, unclipped, no temperature; fp32 throughout, float64 (on the CPU alone) where a logit is
float64; nothing is cast under autocast. The forward returns the gradient too, so that both logits are read once
and the backward only scales, by what arrives: whether that is 1 the device knows, and the host would have to
wait to learn it. The target gets no gradient.

Extreme rows: logits of any finite size are exact up to rounding, a loss beyond the dtype's range is inf. -inf
is a class of probability 0: free where p is 0, an infinite loss with a finite gradient where only q is. A row
with +inf, NaN or nothing but -inf is no distribution: its loss and gradient are NaN. A row of weight 0 is 0
in both, whatever it holds.

Shapes: M masked rows, F feature width.
"""

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction, FunctionCtx

from kaleido_fast.kernels.softmax_kl_triton import softmax_kl_triton


def softmax_kl_reference(prediction: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """`softmax_kl` in plain PyTorch, arguments as there: the CPU path, and the truth for kernels.

    Returns:
        loss (M,), and its gradient with respect to the prediction (M, F), in the prediction's dtype.
    """
    dtype = _compute_dtype(prediction, target)
    log_q = prediction.to(dtype).log_softmax(dim=1)
    log_p = target.to(dtype).log_softmax(dim=1)
    p = log_p.exp()
    terms = torch.where(p == 0, p, p * (log_p - log_q))  # 0 log 0 = 0, also where a logit is -inf
    weight = weight.to(dtype)[:, None]
    loss = torch.where(weight == 0, 0, weight * terms.sum(dim=1, keepdim=True))
    gradient = torch.where(weight == 0, 0, weight * (log_q.exp() - p))
    return loss.squeeze(1), gradient.to(prediction.dtype).contiguous()


def _compute_dtype(prediction: Tensor, target: Tensor) -> torch.dtype:
    return torch.promote_types(torch.promote_types(prediction.dtype, target.dtype), torch.float32)


@torch.library.custom_op("kaleido_fast::softmax_kl", mutates_args=(), device_types="cpu")
def _softmax_kl_op(prediction: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return softmax_kl_reference(prediction, target, weight)


@_softmax_kl_op.register_kernel("cuda")
def _softmax_kl_cuda(prediction: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return softmax_kl_triton(prediction, target, weight)


@_softmax_kl_op.register_fake
def _softmax_kl_fake(prediction: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    loss = weight.new_empty(weight.shape, dtype=_compute_dtype(prediction, target))
    return loss, prediction.new_empty(prediction.shape)


def _save_gradient(ctx: FunctionCtx, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    gradient = output[1]
    ctx.save_for_backward(gradient)
    ctx.mark_non_differentiable(gradient)
    ctx.set_materialize_grads(False)  # nobody differentiates the gradient: no zeros (M, F) for it


def _scale_gradient(ctx: BackwardCFunction, dloss: Tensor | None, _: None) -> tuple[Tensor | None, None, None]:
    if dloss is None:
        return None, None, None
    (gradient,) = ctx.saved_tensors
    return (gradient * dloss[:, None]).to(gradient.dtype), None, None


_softmax_kl_op.register_autograd(_scale_gradient, setup_context=_save_gradient)


def softmax_kl(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """weight * KL(softmax(target) || softmax(prediction)) of each row; differentiable in the prediction.

    Args:
        prediction: (M, F) logits, bf16, fp16, fp32 or float64. M may be 0. On a GPU no float64, F up to 8,192.
        target: (M, F) logits of the clean features; the dtypes may differ.
        weight: (M,) fp32, loss weight over row count; 0 for a row that does not count.
    Returns:
        (M,) fp32, or float64 where a logit is float64.
    Raises:
        ValueError: the shapes do not belong together, a dtype is not floating, or a GPU cannot take them.
    """
    if prediction.dim() != 2 or prediction.shape != target.shape:
        raise ValueError(
            f"softmax_kl: prediction {tuple(prediction.shape)} and target {tuple(target.shape)} must both be"
            " (M, F)"
        )
    if weight.shape != prediction.shape[:1]:
        raise ValueError(
            f"softmax_kl: weight {tuple(weight.shape)} must be (M,), one for each of {len(prediction)} rows"
        )
    for name, tensor in (("prediction", prediction), ("target", target), ("weight", weight)):
        if not tensor.is_floating_point():
            raise ValueError(f"softmax_kl: {name} is {tensor.dtype}, must be floating; convert it")
    return _softmax_kl_op(prediction, target, weight)[0]
