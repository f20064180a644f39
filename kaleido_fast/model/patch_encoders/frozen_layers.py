"""Convolution and batch norm on running statistics, their weights held as buffers.

The norm is folded into the convolution in every call, which costs as many products as there are weights and saves a
pass over the activations:  norm(conv(x, w)) = conv(x, w s) + (bias - mean s),  s = weight / sqrt(var + eps).
Named as torch names them, so that a state dict of nn.Conv2d and nn.BatchNorm2d fits but for `num_batches_tracked`.
"""

import torch
from torch import Tensor, nn


class FrozenConv(nn.Module):
    """The weight of a square convolution without bias; not a number until it is given."""

    weight: Tensor  # (outputs, inputs / groups, kernel, kernel)

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.kernel, self.stride, self.groups = kernel, stride, groups
        weight = torch.full((outputs, inputs // groups, kernel, kernel), float("nan"))
        self.register_buffer("weight", weight.to(memory_format=torch.channels_last))


class FrozenNorm(nn.Module):
    """What a batch norm multiplies and adds in evaluation; not a number until it is given."""

    weight: Tensor  # (C,), like the other three
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.full((channels,), float("nan")))

    def affine(self) -> tuple[Tensor, Tensor]:
        """(C,) scale and (C,) shift."""
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        return scale, self.bias - self.running_mean * scale


def conv_norm(x: Tensor, conv: FrozenConv, norm: FrozenNorm, padding: int) -> Tensor:
    """norm(conv(x)) of (R, C, h, w) in the dtype of `x`, with `padding` zeros on every side."""
    scale, shift = norm.affine()
    weight = (conv.weight * scale.view(-1, 1, 1, 1)).to(x.dtype)
    return nn.functional.conv2d(x, weight, shift.to(x.dtype), conv.stride, padding, groups=conv.groups)


@torch.no_grad()
def draw_weights(module: nn.Module) -> None:
    """Random weights from torch's generator: convolutions keep the variance through a ReLU, norms do nothing."""
    for part in module.modules():
        if isinstance(part, FrozenConv):
            part.weight.normal_(std=(2 / part.weight[0].numel()) ** 0.5)
        elif isinstance(part, FrozenNorm):
            for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
                getattr(part, name).fill_(value)
