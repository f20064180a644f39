"""resnet50 against transformers' ResNet with the same weights, under torchvision's names."""

from collections.abc import Iterator

import pytest
import torch
from transformers import ResNetConfig, ResNetModel

from kaleido_fast.model.patch_encoders.resnet50 import Resnet50Encoder

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BLOCKS = (3, 4, 6, 3)


@pytest.fixture(scope="module")
def theirs() -> ResNetModel:
    """ResNet-50 v1.5 with random weights, norms too; the shortcut's sums kept in bounds."""
    torch.manual_seed(0)
    model = ResNetModel(ResNetConfig(downsample_in_bottleneck=False)).eval()
    for name, part in model.named_modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(part.weight, *((0.1, 0.3) if name.endswith("layer.2.normalization") else (0.5, 1.5)))
            torch.nn.init.normal_(part.bias, std=0.3)
            part.running_mean.normal_(std=0.3)
            part.running_var.uniform_(0.5, 1.5)
    return model


def _names() -> Iterator[tuple[str, str]]:
    """torchvision's prefix of each convolution and norm, and transformers'."""
    yield "conv1", "embedder.embedder.convolution"
    yield "bn1", "embedder.embedder.normalization"
    for stage, blocks in enumerate(BLOCKS):
        for block in range(blocks):
            own, other = f"layer{stage + 1}.{block}", f"encoder.stages.{stage}.layers.{block}"
            for k in range(3):
                yield f"{own}.conv{k + 1}", f"{other}.layer.{k}.convolution"
                yield f"{own}.bn{k + 1}", f"{other}.layer.{k}.normalization"
        yield f"layer{stage + 1}.0.downsample.0", f"encoder.stages.{stage}.layers.0.shortcut.convolution"
        yield f"layer{stage + 1}.0.downsample.1", f"encoder.stages.{stage}.layers.0.shortcut.normalization"


def _torchvision(model: ResNetModel) -> dict[str, torch.Tensor]:
    """The state dict as torchvision's resnet50 has it, its classifier included."""
    state = model.state_dict()
    renamed = {}
    for own, other in _names():
        for name in [name for name in state if name.startswith(f"{other}.")]:
            renamed[own + name.removeprefix(other)] = state.pop(name)
    assert not state
    return renamed | {"fc.weight": torch.randn(1000, 2048), "fc.bias": torch.randn(1000)}


def test_it_reads_torchvisions_names(theirs: ResNetModel) -> None:
    weights = _torchvision(theirs)
    assert len(weights) == 318 + 2
    used = {name for name in weights if not name.startswith("fc.") and not name.endswith("num_batches_tracked")}
    assert set(Resnet50Encoder(24, MEAN, STD).state_dict()) == used and len(used) == 265
    assert {"conv1.weight", "bn1.running_var", "layer1.0.downsample.0.weight", "layer4.2.bn3.bias"} <= used
    assert tuple(weights["layer4.2.conv2.weight"].shape) == (512, 512, 3, 3)


@pytest.mark.parametrize("size", [17, 24, 48, 224])
def test_equals_transformers(theirs: ResNetModel, size: int) -> None:
    encoder = Resnet50Encoder(size, MEAN, STD)
    encoder.take(_torchvision(theirs), "here")
    torch.manual_seed(size)
    patches = torch.randn(2 if size == 224 else 5, 3, size, size)
    with torch.no_grad():
        expected = theirs(patches).pooler_output.flatten(1)
    features = encoder(patches.to(memory_format=torch.channels_last))
    assert features.shape == (len(patches), 2048) and features.dtype == torch.float32
    assert 0.1 < expected.std() < 100 and (features.std(dim=0) > 0).float().mean() > 0.5
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def test_patches_normalised_otherwise_are_brought_to_imagenets_scale(theirs: ResNetModel) -> None:
    weights, pixels = _torchvision(theirs), torch.rand(3, 3, 24, 24)
    features = []
    for mean, std in ((MEAN, STD), ((0.5, 0.4, 0.3), (0.2, 0.5, 0.1))):
        encoder = Resnet50Encoder(24, mean, std)
        encoder.take(weights, "here")
        features.append(encoder((pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)))
    torch.testing.assert_close(*features, rtol=1e-4, atol=1e-4)
