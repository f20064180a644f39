"""linear: a product with the pixels, trained; its targets are the dct's features."""

import torch

from kaleido_fast.model.patch_encoders.dct import DctEncoder
from kaleido_fast.model.patch_encoders.linear import LinearEncoder

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def test_features_are_a_product_with_the_pixels() -> None:
    torch.manual_seed(0)
    encoder, patches = LinearEncoder(8, MEAN, STD, 5), torch.randn(7, 3, 8, 8)
    weight = encoder.projection.weight.view(5, 8, 8, 3)
    expected = torch.einsum("rchw,fhwc->rf", patches, weight) + encoder.projection.bias
    torch.testing.assert_close(encoder(patches), expected)
    torch.testing.assert_close(encoder(patches.to(memory_format=torch.channels_last)), expected)
    encoder(patches).sum().backward()
    assert encoder.projection.weight.grad.any() and encoder.projection.bias.grad.any()


def test_targets_are_the_dct_bit_for_bit_without_gradient() -> None:
    encoder, patches = LinearEncoder(12, MEAN, STD, 32), torch.randn(6, 3, 12, 12)
    targets = encoder.targets(patches, encoder(patches))
    assert torch.equal(targets, DctEncoder(12, MEAN, STD)(patches)) and not targets.requires_grad
    assert (encoder.num_features, encoder.num_targets) == (32, 192)


def test_as_a_bf16_module_it_multiplies_in_bf16_and_keeps_its_targets() -> None:
    encoder, patches = LinearEncoder(8, MEAN, STD, 5), torch.randn(4, 3, 8, 8)
    features, targets = encoder(patches), encoder.targets(patches, torch.empty(0))
    encoder.bfloat16()
    rounded = encoder(patches)
    assert rounded.dtype == torch.float32 and not torch.equal(rounded, features)
    torch.testing.assert_close(rounded, features, rtol=0.05, atol=0.05)
    assert torch.equal(encoder.targets(patches, torch.empty(0)), targets)
