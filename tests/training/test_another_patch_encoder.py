"""A patch encoder that comes from outside, by its row alone: it is built, trained with, stored, and gives a captioner its map.

It is no ConvolutionalEncoder, has weights of its own, another input scale and a stride of 6 pixels.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import conv2d

from kaleido_fast.alignment.captioner_folder import CaptionerShape, give_network_weights, load_captioner, save_captioner
from kaleido_fast.config import Config
from kaleido_fast.data.batches.from_photographs import FromPhotographs
from kaleido_fast.data.batches.loader import Loader
from kaleido_fast.data.shards.manifest import Manifest
from kaleido_fast.data.shards.split import Split
from kaleido_fast.data.store.feature_store import FeatureStore
from kaleido_fast.model.patch_encoders.build import PATCH_ENCODERS, build_patch_encoder, storable_encoders
from kaleido_fast.model.patch_encoders.pretrained import PretrainedEncoder
from kaleido_fast.training.build import build_step
from kaleido_fast.training.pretrain import pretrain
from kaleido_fast.training.stores.encode import encode
from kaleido_fast.training.stores.open import open_source
from tests.small import small_config


class SquaresEncoder(PretrainedEncoder):
    """One 6 x 6 convolution, its places' mean."""

    name = "squares"
    least_patch_size = 6
    num_features = 5
    map_stride = 6
    input_mean, input_std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    classifier = "head."
    weights_file = "squares.safetensors of the tests"

    def __init__(self, patch_size: int, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__(patch_size, mean, std)
        self.register_buffer("weight", torch.full((5, 3, 6, 6), float("nan")))

    def draw(self) -> None:
        self.weight.normal_()

    def feature_map(self, x: Tensor) -> Tensor:
        return conv2d(x, self.weight, stride=6)

    def encode(self, patches: Tensor) -> Tensor:
        return self.feature_map(self.network_input(patches, torch.float32)).mean((2, 3))


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The row is there, and a file of its weights as they are published: with a classifier."""
    monkeypatch.setitem(PATCH_ENCODERS, SquaresEncoder.name, SquaresEncoder)
    values = torch.randn(5, 3, 6, 6, generator=torch.Generator().manual_seed(7)) / 10
    save_file({"weight": values, "head.weight": torch.zeros(2, 5)}, tmp_path / "squares.safetensors")
    return tmp_path / "squares.safetensors"


def _config(shards: Path, folder: Path, weights: Path, *more: str) -> Config:
    return small_config(shards, folder / "run", "train.steps=2", "train.checkpoint_every=1", "data.store_dtype=fp32",
                        f"data.store={folder / 'store'}", "model.patch_encoder=squares",
                        f"model.patch_encoder_weights={weights}", *more)


def test_the_settings_take_its_name_and_ask_for_its_weights(tiny_shards: Path, tmp_path: Path, weights: Path) -> None:
    with pytest.raises(ValueError, match="squares needs model.patch_encoder_weights=FILE: squares.safetensors of the"):
        _config(tiny_shards, tmp_path, weights, "model.patch_encoder_weights=")
    with pytest.raises(ValueError, match="kaleido.patch_size=5: the squares encoder needs at least 6"):
        _config(tiny_shards, tmp_path, weights, "kaleido.patch_size=5")
    with pytest.raises(ValueError, match="expected 'dct', 'efficientnet_lite0', 'linear', 'none', 'resnet50' or 'squares', "
                                         "found 'circles'"):
        _config(tiny_shards, tmp_path, weights, "model.patch_encoder=circles")
    assert "squares" in storable_encoders()


def test_it_trains_and_its_weights_travel(tiny_shards: Path, tmp_path: Path, weights: Path) -> None:
    given, folder = load_file(weights)["weight"], tmp_path / "run" / "checkpoints"
    config = _config(tiny_shards, tmp_path, weights)
    assert pretrain(config) == 0
    weights.unlink()
    name = "step-00000002"
    assert torch.equal(load_file(folder / name / "weights" / "model.safetensors")["patch_encoder.weight"], given)
    state = torch.load(folder / name / "mp_rank_00_model_states.pt", weights_only=False)["module"]
    assert "model.pooler.weight" in state and not [key for key in state if "patch_encoder" in key]
    assert pretrain(_config(tiny_shards, tmp_path, weights, "train.steps=2"), resume=True) == 0


def test_a_store_holds_what_it_computes(tiny_shards: Path, tmp_path: Path, weights: Path) -> None:
    config = _config(tiny_shards, tmp_path, weights, "model.features=stored")
    assert encode(config) == 0
    store = FeatureStore(tmp_path / "store" / "train-000000.features")
    assert store.header.recipe["model.patch_encoder"] == "squares"
    split, step = Split.open(tiny_shards, "train"), build_step(config, Manifest.read(tiny_shards))
    options = {"seed": 3, "micro_batch": 16, "device": torch.device("cpu")}
    stored, computed = (next(Loader(source, config.data, **options))
                        for source in (open_source(config, split), FromPhotographs(split)))
    plan = step.plan_of(stored)
    expected = step.model.features(computed.images, plan)
    assert expected.shape == (16, 57, 5) and expected.std() > 0.1
    torch.testing.assert_close(stored.patches.features_and_targets(step.model, plan)[0], expected, rtol=0, atol=2e-5)
    assert pretrain(config) == 0


def test_a_captioner_reads_its_map(tiny_shards: Path, tmp_path: Path, weights: Path) -> None:
    config, manifest = _config(tiny_shards, tmp_path, weights, "align.network=patch_encoder"), Manifest.read(tiny_shards)
    shape = CaptionerShape.of(config, manifest)
    captioner = shape.build()
    give_network_weights(captioner, str(weights))
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 60, 60, 3)).astype(np.uint8))
    places = captioner.network(images)
    assert places.shape == (2, 10 * 10, 5) and captioner.network.side == 10 and not places.requires_grad
    encoder = build_patch_encoder(config.model, config.kaleido)
    encoder.take(load_file(weights), "")
    normal = (images[1, 6:12, 24:30].permute(2, 0, 1) / 255 - torch.tensor(config.kaleido.mean).view(3, 1, 1)) \
        / torch.tensor(config.kaleido.std).view(3, 1, 1)
    torch.testing.assert_close(places[1, 1 * 10 + 4], encoder(normal[None])[0], rtol=1e-4, atol=1e-4)
    save_captioner(tmp_path / "captioner", shape, captioner.state_dict(), {}, {}, 1.0)
    weights.unlink()
    assert torch.equal(load_captioner(tmp_path / "captioner")[0].network(images), places)
