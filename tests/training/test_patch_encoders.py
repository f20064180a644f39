"""A run with each patch encoder: what trains, what does not, what a checkpoint carries."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kaleido_fast.data.batches.from_photographs import FromPhotographs
from kaleido_fast.data.batches.loader import evaluation_batches
from kaleido_fast.data.shards.manifest import Manifest
from kaleido_fast.data.shards.split import Split
from kaleido_fast.model.patch_encoders.build import PATCH_ENCODERS
from kaleido_fast.model.patch_encoders.dct import DctEncoder
from kaleido_fast.model.patch_encoders.interface import FrozenEncoder
from kaleido_fast.model.weights import load_weights
from kaleido_fast.training.build import build_step
from kaleido_fast.training.checkpoint import latest_checkpoint
from kaleido_fast.training.frozen_state import leave_out_encoder
from kaleido_fast.training.pretrain import pretrain
from kaleido_fast.training.run.folder import RunFolder
from kaleido_fast.training.step import parameter_groups
from tests.data.store.plans import turned_and_greyed
from tests.small import small_config

THREE_STEPS = ("train.steps=3", "train.warmup_steps=2", "train.validate_every=3", "kaleido.grids=[1,4]",
               "kaleido.tasks=[rotation,grey_to_color]")
PATCH_SIZE = {"dct": 12, "linear": 12, "efficientnet_lite0": 20, "resnet50": 17}


def _config(shards: Path, out: Path, name: str, *more: str):
    patches = (f"model.patch_encoder={name}", f"kaleido.patch_size={PATCH_SIZE[name]}")
    return small_config(shards, out, *THREE_STEPS, *patches, *more)


def _weights_file(name: str, folder: Path) -> list[str]:
    """The override that gives a pre-trained encoder a file of random weights; none for the others."""
    encoder = PATCH_ENCODERS[name]
    if name in ("dct", "linear"):
        return []
    torch.manual_seed(0)
    network = encoder(PATCH_SIZE[name], (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    network.draw()
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, folder / "encoder.safetensors")
    return [f"model.patch_encoder_weights={folder / 'encoder.safetensors'}"]


@pytest.mark.parametrize("name", sorted(set(PATCH_ENCODERS) - {"none"}))
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


def test_a_run_goes_on_without_its_encoders_file_which_a_checkpoint_holds_once(tiny_shards: Path, tmp_path: Path) -> None:
    every = ["train.checkpoint_every=1", "train.keep_checkpoints=3"]
    weights = _weights_file("efficientnet_lite0", tmp_path)
    config = _config(tiny_shards, tmp_path / "run", "efficientnet_lite0", *weights, *every)
    assert pretrain(config) == 0
    folder = RunFolder(tmp_path / "run")
    lines = folder.metrics_file.read_text().splitlines()
    newest = load_file(folder.checkpoints / "step-00000003" / "weights" / "model.safetensors")
    encoder = {key for key in newest if key.startswith("patch_encoder.")}
    state = torch.load(folder.checkpoints / "step-00000003" / "mp_rank_00_model_states.pt", weights_only=False)["module"]
    assert encoder and {f"model.{key}" for key in newest.keys() - encoder} == set(state)

    (tmp_path / "encoder.safetensors").unlink()
    (folder.checkpoints / "latest").write_text("step-00000002")
    assert pretrain(config, resume=True) == 0
    again = load_file(folder.checkpoints / "step-00000003" / "weights" / "model.safetensors")
    assert all(torch.equal(again[key], value) for key, value in newest.items()) and again.keys() == newest.keys()
    assert [_losses(line) for line in folder.metrics_file.read_text().splitlines()] == [_losses(line) for line in lines]


def _losses(line: str) -> dict:
    values = json.loads(line)
    return values.get("losses") or values["validation"]


def test_a_state_of_an_older_version_that_holds_the_encoder_is_read(tiny_shards: Path, tmp_path: Path) -> None:
    config = _config(tiny_shards, tmp_path, "efficientnet_lite0", "model.patch_encoder_weights=random")
    step = build_step(config, Manifest.read(tiny_shards))
    older = {key: value.clone() for key, value in step.state_dict().items()}
    leave_out_encoder(step, step.model)
    assert [key for key in step.state_dict() if "patch_encoder" in key] == []
    assert step.load_state_dict(older).missing_keys == step.load_state_dict(step.state_dict()).unexpected_keys == []
    assert {f"model.{key}" for key in step.model.state_dict()} == set(older)
    with pytest.raises(RuntimeError, match="Missing key.*model.pooler.weight"):
        step.load_state_dict({key: value for key, value in older.items() if key != "model.pooler.weight"})


@pytest.mark.parametrize("name", sorted(set(PATCH_ENCODERS) - {"none"}))
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
    batch = next(iter(evaluation_batches(FromPhotographs(split), torch.arange(16).numpy(), config.data, seed=0, micro_batch=16,
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
    plan = turned_and_greyed(torch.zeros(2), grey, model.kaleido.grids)
    features, targets = model.features_and_targets(images, plan)
    assert features.shape == (2, 19, 32) and targets.shape == (2, 19, 192)
    assert features.requires_grad and not targets.requires_grad
    assert torch.equal(features, model.features(images, plan))
    dct = DctEncoder(12, model.kaleido.mean, model.kaleido.std)
    patches = model.patches(images, plan.labels, plan.slots, plan.tasks)
    assert torch.equal(targets, dct(patches).view(2, 19, 192))
    for b in range(2):
        for place, slot in enumerate(grey[b].tolist()):
            assert not torch.allclose(targets[b, 1 + slot], targets[b, 17 + place])  # the slot is clean, the row grey
