"""dct: the 8 x 8 lowest cosine coefficients of each of Y, Cb, Cr of the patch,

    c[d, u, v] = sum_yx b_u[y] b_v[x] Y_d[y, x] / P,   b_k[n] = sqrt((2 - [k = 0]) / P) cos(pi (n + 1/2) k / P)

(orthonormal; over P so that the numbers do not depend on the patch's size), less a mean, over a fixed scale. It needs no
weights and is linear in the pixels: one matrix product.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from kaleido_fast.model.patch_encoders.interface import FrozenEncoder, pixel_rows

LOWEST = 8  # frequencies a direction
# BT.601 as in JPEG, on 0..255
YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
# Per channel: mean and deviation of c[d, 0, 0], and a, e of the deviation a (u^2 + v^2)^-e of the others. Fitted to
# locked photographs of a real catalogue and of the generated one, all five levels (tests/model/patch_encoders/test_dct.py
# holds the variances to unit within a factor).
STATISTICS = ((205.0, 53.0, 29.0, 0.71), (0.0, 8.0, 5.0, 0.68), (0.0, 10.0, 6.0, 0.69))


class DctEncoder(FrozenEncoder):
    """The lowest cosine coefficients, F = 192; feature (d * 8 + u) * 8 + v, u the vertical frequency."""

    name = "dct"
    least_patch_size = LOWEST
    num_features = 3 * LOWEST * LOWEST
    weight: Tensor  # (3 * P * P, F)
    bias: Tensor  # (F,)

    def __init__(self, patch_size: int, mean: Sequence[float], std: Sequence[float]) -> None:
        """Raises ValueError where a patch has fewer than 8 pixels a side."""
        super().__init__(patch_size)
        weight, bias = _dct_weights(patch_size, torch.tensor(mean).double(), torch.tensor(std).double())
        self.register_buffer("weight", weight.float(), persistent=False)
        self.register_buffer("bias", bias.float(), persistent=False)

    def encode(self, patches: Tensor) -> Tensor:
        """(R, 3, P, P) -> (R, 192); channels-last patches are read as they lie."""
        return torch.addmm(self.bias, pixel_rows(patches).float(), self.weight)


def dct_scale() -> Tensor:
    """(3, 8, 8) fp64: what each coefficient is divided by."""
    frequency = torch.arange(LOWEST).double()
    squared = frequency[:, None] ** 2 + frequency**2
    scales = []
    for _, constant, a, e in STATISTICS:
        scale = a * squared.clamp(min=1).pow(-e)
        scale[0, 0] = constant
        scales.append(scale)
    return torch.stack(scales)


def _dct_weights(patch_size: int, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """(P*P*3, 192) and (192,): from normalised pixels, channels last, straight to scaled coefficients."""
    n, k = torch.arange(patch_size).double(), torch.arange(LOWEST).double()[:, None]
    basis = torch.cos(math.pi * (n + 0.5) * k / patch_size) * math.sqrt(2 / patch_size)
    basis[0] /= math.sqrt(2)
    colour = torch.tensor(YCBCR).double()
    # c = sum over y, x, channel of basis_u[y] basis_v[x] colour[d, channel] * 255 (std * value + mean) / P
    scale = dct_scale()[..., None, None, None]
    per_pixel = torch.einsum("uy,vx,dc->duvyxc", basis, basis, colour) * 255 / patch_size / scale
    centre = torch.zeros(3, LOWEST, LOWEST).double()
    centre[:, 0, 0] = torch.tensor([row[0] for row in STATISTICS]) / dct_scale()[:, 0, 0]
    weight = (per_pixel * std).reshape(DctEncoder.num_features, -1).T
    bias = (per_pixel * mean).sum(dim=(-3, -2, -1)) - centre
    return weight.contiguous(), bias.flatten()
