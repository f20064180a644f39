"""What is 16 bit under train.precision=bf16: products, and all that lies between layers; norms compute in fp32 inside.

Two ways lead there: autocast over fp32 weights (ZeRO stage 0), under which torch's own LayerNorm returns fp32 on CUDA and with
it every sum after it, and bf16 weights (stages 1 to 3). In fp32 and float64 nothing here differs from torch.
"""

from typing import Any

import torch
from torch import Tensor, nn

LOW = (torch.bfloat16, torch.float16)


def product_dtype(x: Tensor) -> torch.dtype:
    """Of a matrix product with `x`: autocast's where it is on, but for float64; else its own."""
    kind = x.device.type
    if x.dtype != torch.float64 and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return x.dtype


class LayerNorm(nn.LayerNorm):
    """torch's, over the last dimension; 16 bit in gives 16 bit out, under autocast too.

    In between all is fp32, with the weights as they are, and the input alone is kept for the backward. So a value costs two
    bytes read and two written, once a compiler has made one kernel of it.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(..., H) -> (..., H) of the same dtype."""
        if x.dtype not in LOW:
            return super().forward(x)
        return _LowLayerNorm.apply(x, self.weight, self.bias, self.eps)


class _LowLayerNorm(torch.autograd.Function):
    """(..., H) 16 bit, weight and bias (H,) of any dtype, eps -> (..., H) 16 bit."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        out, mean, scale = torch.native_layer_norm(x.float(), weight.shape, weight.float(), bias.float(), eps)
        ctx.save_for_backward(x, weight, bias, mean, scale)
        return out.to(x.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, scale = ctx.saved_tensors
        wanted = list(ctx.needs_input_grad[:3])
        gradients = torch.ops.aten.native_layer_norm_backward(
            dout.float(), x.float(), weight.shape, mean, scale, weight.float(), bias.float(), wanted)
        inputs = zip(gradients, (x, weight, bias), wanted, strict=True)
        return *(gradient.to(given.dtype) if is_wanted else None for gradient, given, is_wanted in inputs), None
