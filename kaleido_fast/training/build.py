"""From settings and a manifest to the module that is trained."""

import os
import shutil

import torch

from kaleido_fast.data.shards.manifest import Manifest
from kaleido_fast.kernels.plan_rules import PlanRules
from kaleido_fast.model.attention.packed import AUTO, PRECISIONS, PickedAttention, pick_attention
from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from kaleido_fast.model.kaleido_tasks import plan_rules
from kaleido_fast.model.patch_encoder_weights import give_weights
from kaleido_fast.model.settings import FineTuned, VocabularySettings
from kaleido_fast.training.settings import StepConfig
from kaleido_fast.training.step import PretrainStep
from kaleido_fast.training.workers.group import own_device


def build_step(config: StepConfig, manifest: Manifest, resumed: bool = False) -> PretrainStep:
    """Model, plan and losses for a run, on this worker's device; random weights are drawn from torch's generator, keyed by
    train.seed before.

    Args:
        resumed: the weights will come from a checkpoint, a pre-trained patch encoder's too.
    """
    model, train = build_model(config, manifest, resumed), config.train
    return PretrainStep(
        model, rules_for(config, manifest), train.seed, train.task_weights, train.losses_on_mismatched,
        config.reference, train.itc_block if train.contrasts else 0,
    ).to(own_device(config.run.device))


def build_model(
    config: StepConfig, manifest: Manifest, resumed: bool = False, finetuned: FineTuned | None = None
) -> KaleidoBertModel:
    """The model of a run, on the CPU; arguments as of `build_step`.

    Args:
        finetuned: what it is fine-tuned for.
    """
    device = own_device(config.run.device)
    model = KaleidoBertModel(config.model, config.kaleido, vocabulary_settings(manifest), config.data.image_size, finetuned)
    if config.model.attention == AUTO:
        model.attend_by(AUTO, device, config.train.precision, config.model.attention_dropout)
    if not resumed:
        give_weights(model.patch_encoder, config.model.patch_encoder_weights)
    if config.model.compile:
        _compile(model, config.run.device)
    return model


def picked_attention(config: StepConfig, device: torch.device) -> PickedAttention:
    """What a run's attention is computed by; needs the device.

    Raises:
        ValueError: what model.attention or model.compile asks for cannot run here.
    """
    model, compiler = config.model, os.environ.get("CXX", "g++")
    if model.compile and shutil.which(compiler) is None:
        raise ValueError(f"model.compile=true needs a C++ compiler, '{compiler}' not found; install g++, set CXX, or set "
                         "model.compile=false")
    picked = pick_attention(
        model.attention, device, PRECISIONS[config.train.precision], model.heads, model.hidden // model.heads,
        model.attention_dropout)
    if model.compile and picked.name == "sdpa" and device.type == "cuda":
        raise ValueError(f"model.compile=true needs attention in one call on CUDA, found model.attention={model.attention} and "
                         f"only sdpa here: {picked.why_no_other}; set model.compile=false")
    return picked


def _compile(model: KaleidoBertModel, device: str) -> None:
    """Nothing is compiled before it runs; on a CPU the patch encoder stays as it is."""
    model.encoder.compile_layers()
    if device == "cuda":
        model.patch_encoder.compile_network()


def rules_for(config: StepConfig, manifest: Manifest) -> PlanRules:
    """The plan's rules under these settings and this vocabulary."""
    vocabulary = manifest.vocabulary
    return plan_rules(config.kaleido, mask_id=vocabulary.mask_id, ordinary_first=vocabulary.ordinary_first,
                      ordinary_last=vocabulary.ordinary_last)


def vocabulary_settings(manifest: Manifest) -> VocabularySettings:
    """What the model must know of the shards' vocabulary."""
    vocabulary = manifest.vocabulary
    return VocabularySettings(vocabulary.size, vocabulary.padded_size, vocabulary.fingerprint)
