"""What frozen encoders promise whatever is done to the model around them; sizes; settings."""

import dataclasses
import sys

import pytest
import torch
from torch._dynamo.utils import counters

from kaleido_fast.model.patch_encoders import convolutional
from kaleido_fast.model.patch_encoders.build import PATCH_ENCODERS, build_patch_encoder, check_patch_encoder
from kaleido_fast.model.patch_encoders.efficientnet_lite0 import EfficientnetLite0Encoder
from kaleido_fast.model.patch_encoders.frozen_layers import FrozenConv, FrozenNorm
from kaleido_fast.model.patch_encoders.interface import FrozenEncoder
from kaleido_fast.model.patch_encoders.resnet50 import Resnet50Encoder
from kaleido_fast.model.settings import KaleidoSettings, ModelSettings

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FROZEN = [name for name, encoder in PATCH_ENCODERS.items() if issubclass(encoder, FrozenEncoder) and name != "none"]


def _built(name: str, size: int = 24) -> FrozenEncoder:
    encoder = build_patch_encoder(ModelSettings(patch_encoder=name), KaleidoSettings(patch_size=size))
    torch.manual_seed(0)
    if isinstance(encoder, convolutional.ConvolutionalEncoder):
        encoder.draw()
    return encoder


@pytest.mark.parametrize("name", FROZEN)
def test_nothing_of_it_trains_or_moves(name: str) -> None:
    encoder = _built(name)
    patches = torch.randn(3, 3, 24, 24, requires_grad=True)
    before, state = encoder(patches), {key: value.clone() for key, value in encoder.state_dict().items()}
    assert not list(encoder.parameters()) and not before.requires_grad
    holder = torch.nn.Sequential(encoder).train().requires_grad_(True)
    assert holder.training and not any(part.training for part in encoder.modules())
    assert torch.equal(encoder(patches), before) and torch.equal(encoder.targets(patches, before), before)
    assert all(torch.equal(value, state[key]) for key, value in encoder.state_dict().items())


@pytest.mark.parametrize("name", FROZEN)
def test_autocast_and_bf16_around_it_change_nothing(name: str) -> None:
    encoder, patches = _built(name), torch.randn(3, 3, 24, 24)
    before = encoder(patches)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(encoder(patches), before)
    torch.nn.Sequential(encoder).bfloat16()
    assert torch.equal(encoder(patches), before) and before.dtype == torch.float32


def _unfolded(x: torch.Tensor, conv: FrozenConv, norm: FrozenNorm, padding: int) -> torch.Tensor:
    out = torch.nn.functional.conv2d(x, conv.weight.to(x.dtype), None, conv.stride, padding, groups=conv.groups)
    return torch.nn.functional.batch_norm(out, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)


@pytest.mark.parametrize("kind", [EfficientnetLite0Encoder, Resnet50Encoder])
def test_bf16_channels_last_as_on_cuda_errs_no_more_than_plain_layers(kind, stir, monkeypatch) -> None:
    encoder, patches = stir(kind(24, MEAN, STD)), torch.randn(8, 3, 24, 24)
    x = encoder.network_input(patches, torch.bfloat16)
    assert x.is_contiguous(memory_format=torch.channels_last)
    features, folded = encoder(patches), encoder.feature_map(x)
    monkeypatch.setattr(sys.modules[kind.__module__], "conv_norm", _unfolded)
    plain = encoder.feature_map(x)

    def error(rounded: torch.Tensor) -> float:
        assert rounded.dtype == torch.bfloat16
        return float((rounded.float().mean((2, 3)) - features).norm() / features.norm())

    assert 0 < error(folded) < 2 * error(plain) < 0.2
    torch.testing.assert_close(encoder(patches), features, rtol=1e-4, atol=1e-4 * float(features.abs().max()))


@pytest.mark.gpu
@pytest.mark.parametrize("kind", [EfficientnetLite0Encoder, Resnet50Encoder])
def test_cuda_is_near_cpu(kind, stir) -> None:
    encoder, patches = stir(kind(24, MEAN, STD)), torch.randn(8, 3, 24, 24)
    expected = encoder(patches)
    features = encoder.cuda()(patches.cuda())
    assert features.dtype == torch.float32 and features.is_cuda
    assert float((features.cpu() - expected).norm() / expected.norm()) < 0.1


@pytest.mark.parametrize("kind", [EfficientnetLite0Encoder, Resnet50Encoder])
def test_pieces_equal_the_whole(kind, stir, monkeypatch) -> None:
    encoder, patches = stir(kind(20, MEAN, STD)), torch.randn(7, 3, 20, 20)
    whole = encoder(patches)
    monkeypatch.setattr(convolutional, "PIECE", 3 * 400)
    calls = []
    monkeypatch.setattr(encoder, "network_input",
                        lambda *inputs: calls.append(len(inputs[0])) or kind.network_input(encoder, *inputs))
    torch.testing.assert_close(encoder(patches), whole, rtol=1e-4, atol=1e-4 * float(whole.abs().max()))
    assert calls == [3, 3, 1]


@pytest.mark.parametrize("kind", [EfficientnetLite0Encoder, Resnet50Encoder])
def test_weights_that_were_not_given_are_not_a_number(kind) -> None:
    assert kind(24, MEAN, STD)(torch.zeros(1, 3, 24, 24)).isnan().all()


@pytest.mark.parametrize(("name", "least"), [("dct", 8), ("linear", 8), ("efficientnet_lite0", 17), ("resnet50", 17)])
def test_the_smallest_patch(name: str, least: int) -> None:
    encoder = _built(name, least)
    features = encoder(torch.randn(2, 3, least, least))
    assert features.shape == (2, encoder.num_features) and features.isfinite().all()
    with pytest.raises(ValueError, match=f"kaleido.patch_size={least - 1}: the {name} encoder needs at least {least}"):
        _built(name, least - 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch_encoder": "resnet50"}, r"resnet50 needs model.patch_encoder_weights=FILE: torchvision's resnet50-\*.pth"),
        ({"patch_encoder_weights": "x.pth"}, "patch_encoder_weights=x.pth: the dct encoder reads no weights; take it out"),
        ({"patch_encoder": "linear", "patch_encoder_weights": "random"}, "the linear encoder reads no weights"),
        ({"patch_features": 64}, "patch_features=64 is for the linear encoder; dct has 192 features"),
        ({"patch_encoder": "linear", "features": "stored"},
         "linear is trained with the model, so its features cannot be stored; set model.features=comp"),
    ],
)
def test_settings_that_do_not_go_together_are_named(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_patch_encoder(dataclasses.replace(ModelSettings(), **change), KaleidoSettings())


def test_the_linear_width_is_the_settings_or_hidden() -> None:
    for given, width in ((0, 768), (40, 40)):
        settings = ModelSettings(patch_encoder="linear", patch_features=given)
        assert build_patch_encoder(settings, KaleidoSettings(patch_size=8)).num_features == width


def test_compiled_is_one_graph_for_any_number_of_patches(stir, monkeypatch) -> None:
    torch.compiler.reset()
    counters.clear()
    monkeypatch.setattr(convolutional, "BACKEND", "aot_eager")
    encoder = stir(EfficientnetLite0Encoder(20, MEAN, STD))
    patches = torch.randn(9, 3, 20, 20)
    plain = encoder(patches)
    encoder.compile_network()
    for rows in (9, 4, 7):
        torch.testing.assert_close(encoder(patches[:rows]), plain[:rows], rtol=1e-4, atol=1e-4 * float(plain.abs().max()))
    assert counters["stats"]["unique_graphs"] == 1 and set(encoder.state_dict()) == set(stir(
        EfficientnetLite0Encoder(20, MEAN, STD)).state_dict())
    torch.compiler.reset()
