"""softmax_kl on a GPU (softmax_kl.py says what it computes): both logits read once, the gradient written once.

A program keeps its rows whole in registers, so nothing is read a second time and no row is split over
programs. It has 16 values of each logit a thread, in fp32 whatever the inputs: 8 KiB of bf16 in flight a
program, and 6 programs or more fit an SM (benchmarks/results), against the 18 KiB an SM that an H100 has to
have under way (3.35 TB/s for 0.7 us over 132 SMs). Hence 2,048 values a program (one row of ResNet-50's
features, ten of 192), and from there up one row, with more warps.

Traffic a row: F values of each logit in, F of the gradient out, a weight in, a loss out.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from kaleido_fast.kernels.memory import begins_wide, loadable

MAX_FEATURES = 8192  # 16 warps; above it a row no longer fits the registers of a program
_VALUES = 2048  # of one logit a program
_VALUES_PER_WARP = 512


@triton.jit(do_not_specialize=["num_rows", "prediction_units", "target_units"])
def _softmax_kl_kernel(
    prediction_ptr,  # (M, F), rows prediction_units * ALIGN values apart
    target_ptr,  # (M, F), rows target_units * ALIGN values apart
    weight_ptr,  # (M,)
    loss_ptr,  # (M,) fp32
    gradient_ptr,  # (M, F)
    num_rows,  # M
    prediction_units,
    target_units,
    ALIGN: tl.constexpr,
    FEATURES: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    feature = tl.arange(0, BLOCK)[None, :]
    inside = (row < num_rows) & (feature < FEATURES)
    nothing = -float("inf")
    x = tl.load(prediction_ptr + row * prediction_units * ALIGN + feature, mask=inside, other=nothing).to(tl.float32)
    y = tl.load(target_ptr + row * target_units * ALIGN + feature, mask=inside, other=nothing).to(tl.float32)
    weight = tl.load(weight_ptr + row, mask=row < num_rows, other=0).to(tl.float32)

    x -= tl.max(x, axis=1, keep_dims=True)
    y -= tl.max(y, axis=1, keep_dims=True)
    q, p = tl.exp(x), tl.exp(y)
    sum_q, sum_p = tl.sum(q, axis=1, keep_dims=True), tl.sum(p, axis=1, keep_dims=True)
    q, p = q * (1 / sum_q), p * (1 / sum_p)

    terms = p * ((y - tl.log(sum_p)) - (x - tl.log(sum_q)))
    terms = tl.where(p == 0, p, terms)  # 0 log 0 = 0, also where a logit is -inf; NaN stays
    loss = tl.where(weight == 0, 0, weight * tl.sum(terms, axis=1, keep_dims=True))
    gradient = tl.where(weight == 0, 0, weight * (q - p))
    tl.store(loss_ptr + row, loss, mask=row < num_rows)
    tl.store(
        gradient_ptr + row * FEATURES + feature, gradient.to(gradient_ptr.dtype.element_ty), mask=inside
    )


def softmax_kl_triton(prediction: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """`softmax_kl_reference` by one kernel, arguments as there; rows may be any distance apart.

    Logits whose features are not adjacent in memory, or that begin at no multiple of 16 bytes, are copied first.

    Raises:
        ValueError: F is above 8,192, or something is float64.
    """
    _check(prediction, target, weight)
    num_rows, features = prediction.shape
    prediction, target = (x if x.stride(1) == 1 and begins_wide(x) else loadable(x) for x in (prediction, target))
    loss = weight.new_empty(num_rows, dtype=torch.float32)
    gradient = prediction.new_empty(num_rows, features)
    if not gradient.numel():
        return loss.zero_(), gradient
    grid, options = launch(num_rows, features)
    # One row has no next one, whatever its stride says.
    apart = [x.stride(0) if num_rows > 1 else features for x in (prediction, target)]
    align = math.gcd(8, *apart)
    with torch.cuda.device_of(prediction):
        _softmax_kl_kernel[grid](
            prediction, target, loadable(weight), loss, gradient, num_rows, *(stride // align for stride in apart), ALIGN=align,
            FEATURES=features, **options,
        )
    return loss, gradient


def launch(num_rows: int, features: int) -> tuple[tuple[int], dict[str, int]]:
    """The grid, and the tile of a program with its warps."""
    block = triton.next_power_of_2(features)
    rows = max(1, _VALUES // block)
    return (triton.cdiv(num_rows, rows),), {
        "ROWS": rows, "BLOCK": block, "num_warps": rows * block // _VALUES_PER_WARP,
    }


def _check(prediction: Tensor, target: Tensor, weight: Tensor) -> None:
    if prediction.shape[1] > MAX_FEATURES:
        raise ValueError(
            f"softmax_kl: logits of {prediction.shape[1]:,} features, on a GPU at most {MAX_FEATURES:,}; call"
            " softmax_kl_reference"
        )
    if torch.float64 in (prediction.dtype, target.dtype, weight.dtype):
        raise ValueError(
            f"softmax_kl: prediction {prediction.dtype}, target {target.dtype} and weight {weight.dtype} must be"
            " fp32 or half precision on a GPU; convert them, or move them to the CPU"
        )
