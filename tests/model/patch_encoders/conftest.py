"""Frozen networks whose every weight matters: random convolutions, norms that do something."""

from collections.abc import Callable

import pytest
import torch

from kaleido_fast.model.patch_encoders.convolutional import ConvolutionalEncoder
from kaleido_fast.model.patch_encoders.frozen_layers import FrozenNorm


@pytest.fixture(scope="session")
def stir() -> Callable[[ConvolutionalEncoder], ConvolutionalEncoder]:
    """Draw the weights of an encoder, its norms' too."""
    def stirred(encoder: ConvolutionalEncoder) -> ConvolutionalEncoder:
        torch.manual_seed(0)
        encoder.draw()
        for part in encoder.modules():
            if isinstance(part, FrozenNorm):
                part.weight.mul_(torch.rand_like(part.weight) + 0.5)
                part.bias.normal_(std=0.3)
                part.running_mean.normal_(std=0.3)
                part.running_var.uniform_(0.5, 1.5)
        return encoder

    return stirred
