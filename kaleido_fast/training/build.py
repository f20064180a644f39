"""From settings and a manifest to the module that is trained."""

from kaleido_fast.config import Config
from kaleido_fast.data.manifest import Manifest
from kaleido_fast.kernels.plan_rules import PlanRules
from kaleido_fast.model.kaleido_bert import KaleidoBert
from kaleido_fast.model.kaleido_tasks import plan_rules
from kaleido_fast.model.patch_encoder_weights import load_patch_encoder
from kaleido_fast.model.settings import VocabularySettings
from kaleido_fast.training.step import PretrainStep


def build_step(config: Config, manifest: Manifest, resumed: bool = False) -> PretrainStep:
    """Model, plan and losses for a run; random weights are drawn from torch's generator, keyed by train.seed before.

    Args:
        resumed: the weights will come from a checkpoint, a pre-trained patch encoder's too.
    """
    model = KaleidoBert(config.model, config.kaleido, vocabulary_settings(manifest), config.data.image_size)
    if not resumed:
        load_patch_encoder(model)
    train = config.train
    return PretrainStep(
        model, rules_for(config, manifest), train.seed, train.task_weights, train.losses_on_mismatched,
        config.reference,
    ).to(config.run.device)


def rules_for(config: Config, manifest: Manifest) -> PlanRules:
    """The plan's rules under these settings and this vocabulary."""
    vocabulary = manifest.vocabulary
    return plan_rules(config.kaleido, mask_id=vocabulary.mask_id, ordinary_first=vocabulary.ordinary_first,
                      ordinary_last=vocabulary.ordinary_last)


def vocabulary_settings(manifest: Manifest) -> VocabularySettings:
    """What the model must know of the shards' vocabulary."""
    vocabulary = manifest.vocabulary
    return VocabularySettings(vocabulary.size, vocabulary.padded_size, vocabulary.fingerprint)
