"""resnet50: ResNet-50 v1.5 (He et al. 2016; the stride in the 3 x 3) up to its pooling, F = 2048, torchvision's names."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, relu

from kaleido_fast.model.patch_encoders.convolutional import ConvolutionalEncoder
from kaleido_fast.model.patch_encoders.frozen_layers import FrozenConv, FrozenNorm, conv_norm

STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))  # channels of the 3 x 3, blocks, stride of the first
EXPANSION = 4
EPS = 1e-5


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3, 1 x 1 beside a shortcut."""

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        outputs = channels * EXPANSION
        self.conv1, self.bn1 = FrozenConv(inputs, channels, 1), FrozenNorm(channels, EPS)
        self.conv2, self.bn2 = FrozenConv(channels, channels, 3, stride), FrozenNorm(channels, EPS)
        self.conv3, self.bn3 = FrozenConv(channels, outputs, 1), FrozenNorm(outputs, EPS)
        changes = stride != 1 or inputs != outputs
        self.downsample = nn.Sequential(FrozenConv(inputs, outputs, 1, stride), FrozenNorm(outputs, EPS)) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        out = relu(conv_norm(x, self.conv1, self.bn1, 0), inplace=True)
        out = relu(conv_norm(out, self.conv2, self.bn2, 1), inplace=True)
        out = conv_norm(out, self.conv3, self.bn3, 0)
        if self.downsample is not None:
            conv, norm = self.downsample
            assert isinstance(conv, FrozenConv) and isinstance(norm, FrozenNorm)
            x = conv_norm(x, conv, norm, 0)
        return relu(out.add_(x), inplace=True)


class Resnet50Encoder(ConvolutionalEncoder):
    """ImageNet's mean and deviation in, 2048 pooled numbers out; a patch shrinks 32 times."""

    name = "resnet50"
    num_features = STAGES[-1][0] * EXPANSION
    input_mean, input_std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    classifier = "fc."
    map_stride = 32
    weights_file = ("torchvision's resnet50-*.pth (its resnet50(weights='DEFAULT') downloads it), or a .safetensors of the "
                    "same names")

    def __init__(self, patch_size: int, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__(patch_size, mean, std)
        self.conv1, self.bn1 = FrozenConv(3, 64, 7, 2), FrozenNorm(64, EPS)
        inputs = 64
        for number, (channels, blocks, stride) in enumerate(STAGES, start=1):
            stage = [Bottleneck(inputs, channels, stride)]
            inputs = channels * EXPANSION
            stage += [Bottleneck(inputs, channels, 1) for _ in range(blocks - 1)]
            setattr(self, f"layer{number}", nn.Sequential(*stage))

    def feature_map(self, x: Tensor) -> Tensor:
        x = relu(conv_norm(x, self.conv1, self.bn1, 3), inplace=True)
        x = max_pool2d(x, 3, stride=2, padding=1)
        for number in range(1, len(STAGES) + 1):
            x = getattr(self, f"layer{number}")(x)
        return x

    @torch.no_grad()
    def draw(self) -> None:
        """Random weights; each block's last norm a fifth, so that sixteen sums stay in bounds."""
        super().draw()
        for part in self.modules():
            if isinstance(part, Bottleneck):
                part.bn3.weight.fill_(0.2)
