"""A run with each patch encoder: what trains, what does not, what a checkpoint carries."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from kaleido_fast.config import load_config
from kaleido_fast.data.loader import evaluation_batches
from kaleido_fast.data.manifest import Manifest
from kaleido_fast.data.shards import Split
from kaleido_fast.model.patch_encoders.build import ENCODERS
from kaleido_fast.model.patch_encoders.dct import DctEncoder
from kaleido_fast.model.patch_encoders.interface import FrozenEncoder
from kaleido_fast.model.weights import load_weights
from kaleido_fast.training.build import build_step
from kaleido_fast.training.checkpoint import latest_checkpoint
from kaleido_fast.training.pretrain import pretrain
from kaleido_fast.training.step import parameter_groups

REPO = Path(__file__).parents[2]
SMALL = ["train.minutes=0", "train.steps=3", "train.micro_batch=16", "train.warmup_steps=2", "model.layers=1",
         "model.hidden=32", "model.intermediate=64", "train.log_every=1", "train.validation_samples=16",
         "train.validate_every=3", "data.image_size=60", "kaleido.grids=[1,4]", "kaleido.tasks=[rotation,grey_to_color]",
         "run.device=cpu"]
PATCH_SIZE = {"dct": 12, "linear": 12, "efficientnet_lite0": 20, "resnet50": 17}


def _config(shards: Path, out: Path, name: str, *more: str):
    sizes = [f"model.patch_encoder={name}", f"kaleido.patch_size={PATCH_SIZE[name]}"]
    return load_config(REPO / "configs" / "demo.yaml", [*SMALL, *sizes, f"data.shards={shards}", f"run.out={out}", *more])


def _weights_file(name: str, folder: Path) -> list[str]:
    """The override that gives a pre-trained encoder a file of random weights; none for the others."""
    encoder = ENCODERS[name]
    if name in ("dct", "linear"):
        return []
    torch.manual_seed(0)
    network = encoder(PATCH_SIZE[name], (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    network.draw()
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, folder / "encoder.safetensors")
    return [f"model.patch_encoder_weights={folder / 'encoder.safetensors'}"]


@pytest.mark.parametrize("name", sorted(set(ENCODERS) - {"none"}))
def test_three_steps_and_the_weights_travel_without_their_file(name: str, tiny_shards: Path, tmp_path: Path) -> None:
    config = _config(tiny_shards, tmp_path / "run", name, *_weights_file(name, tmp_path))
    torch.manual_seed(config.train.seed)
    before = build_step(config, Manifest.read(tiny_shards)).model
    assert pretrain(config) == 0
    (tmp_path / "encoder.safetensors").unlink(missing_ok=True)
    checkpoint = latest_checkpoint(tmp_path / "run" / "checkpoints")
    model = load_weights(checkpoint / "weights")
    own = before.patch_encoder.state_dict()
    moved = [key for key, value in model.patch_encoder.state_dict().items() if not torch.equal(value, own[key])]
    assert moved == (["projection.weight", "projection.bias"] if name == "linear" else [])
    patches = torch.randn(4, 3, PATCH_SIZE[name], PATCH_SIZE[name])
    assert torch.equal(model.patch_encoder(patches), before.patch_encoder(patches)) is (name != "linear")
    assert not torch.equal(model.pooler.weight, before.pooler.weight)
    assert model.kaleido_heads["grey_to_color"].out_features == model.patch_encoder.num_targets
    shutil.rmtree(tmp_path / "run")  # 300 MB of resnet50


@pytest.mark.parametrize("name", sorted(set(ENCODERS) - {"none"}))
def test_the_optimizer_gets_what_trains(name: str, tiny_shards: Path, tmp_path: Path) -> None:
    step = build_step(_config(tiny_shards, tmp_path, name, *_weights_file(name, tmp_path)), Manifest.read(tiny_shards))
    step.train()
    optimized = {id(p) for group in parameter_groups(step, 0.1) for p in group["params"]}
    encoder = step.model.patch_encoder
    trained = [part for part, value in encoder.state_dict(keep_vars=True).items() if id(value) in optimized]
    assert trained == (["projection.weight", "projection.bias"] if name == "linear" else [])
    assert optimized == {id(p) for p in step.parameters()}

    split = Split.open(tiny_shards, "train")
    config = _config(tiny_shards, tmp_path, "dct")
    batch = next(iter(evaluation_batches(split, torch.arange(16).numpy(), config.data, seed=0, micro_batch=16,
                                         device=torch.device("cpu"), draw_text=True)))
    rows, state = step.count(batch), {key: value.clone() for key, value in encoder.state_dict().items()}
    step(batch, rows, rows, torch.tensor([1, 2, 3])).loss.backward()
    assert [key for key, value in encoder.state_dict().items() if not torch.equal(value, state[key])] == []
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in encoder.parameters())
    assert isinstance(encoder, FrozenEncoder) or list(encoder.parameters())


def test_the_colour_targets_of_linear_are_the_clean_patches_dct(tiny_shards: Path, tmp_path: Path) -> None:
    model = build_step(_config(tiny_shards, tmp_path, "linear"), Manifest.read(tiny_shards)).model
    images = torch.randint(0, 256, (2, 60, 60, 3), dtype=torch.uint8)
    grey = torch.tensor([[3, 9], [0, 15]], dtype=torch.int32)
    features, targets = model.features_and_targets(images, torch.zeros(2, dtype=torch.int32), grey)
    assert features.shape == (2, 19, 32) and targets.shape == (2, 19, 192)
    assert features.requires_grad and not targets.requires_grad
    assert torch.equal(features, model.features(images, torch.zeros(2, dtype=torch.int32), grey))
    dct = DctEncoder(12, model.kaleido.mean, model.kaleido.std)
    patches = model._cut(images, torch.zeros(2, dtype=torch.int32), grey)
    assert torch.equal(targets, dct(patches).view(2, 19, 192))
    for b in range(2):
        for place, slot in enumerate(grey[b].tolist()):
            assert not torch.allclose(targets[b, 1 + slot], targets[b, 17 + place])  # the slot is clean, the row grey
