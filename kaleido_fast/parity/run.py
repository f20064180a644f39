"""The comparison on a user's settings: a batch, random weights, both paths, the table."""

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch

from kaleido_fast.data.batches.batch import Batch
from kaleido_fast.data.batches.patches import Pixels, ReadyRows
from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from kaleido_fast.model.parameter_roles import parameter_roles
from kaleido_fast.model.task_table import PAPERS_TASKS, TASKS
from kaleido_fast.parity.bounds import bounds_of
from kaleido_fast.parity.compare import COMPARED_STEPS, Comparison, Trace, compare, trace
from kaleido_fast.parity.drawn_batch import batch_of
from kaleido_fast.parity.paths import FastPath, ReferencePath, trained
from kaleido_fast.reference.kaleido_bert import ReferenceKaleidoBert
from kaleido_fast.reference.losses import LossSettings
from kaleido_fast.reference.step import ReferenceStep
from kaleido_fast.reference.weights import from_fast
from kaleido_fast.training.build import build_step
from kaleido_fast.training.settings import StepConfig
from kaleido_fast.training.step import PretrainStep
from kaleido_fast.training.workers.group import own_device

# What is compared without a config: configs/demo.yaml, which is not installed with the package.
DEMO: dict[str, Any] = {
    "data": {"image_size": 120, "max_tokens": 40}, "kaleido": {"patch_size": 24},
    "model": {"hidden": 128, "layers": 3, "heads": 4, "intermediate": 512, "dropout": 0.0, "initializer_range": 0.05,
              "itc_dim": 128},
    "train": {"micro_batch": 64, "itc_block": 64, "learning_rate": 1.2e-3, "betas": [0.9, 0.98], "weight_decay": 0.01,
              "task_weights": {"itm": 5, "itc": 2} | {name: 0.2 if TASKS[name].num_classes else 0.1 for name in PAPERS_TASKS}},
    "run": {"device": "cpu"},
}
SPREAD = 0.05  # deviation of what is added to norms and biases, which start at 1 and 0 and would hide a mistake


@dataclass(frozen=True, slots=True)
class ParityReport:
    """What was compared, and a row a quantity."""

    title: str
    rows: list[Comparison]

    @property
    def holds(self) -> bool:
        return all(row.holds for row in self.rows)


def check_parity(config: StepConfig) -> ParityReport:
    """Both paths forward, backward and ten steps on one batch, from the same random weights.

    Raises:
        ValueError: settings under which the two cannot be compared, a device that is not there, shards that cannot be
            read.
    """
    device = _device(config)
    batch, manifest = batch_of(config, device)
    torch.manual_seed(config.train.seed)
    fast = build_step(config, manifest)
    spread_norms_and_biases(fast.model)
    batch = _features_ready(fast, batch)
    plain = reference_of(fast, config)
    names = list(trained(fast.model))
    bf16 = config.train.precision == "bf16"

    def reference(bf16: bool) -> Trace:
        return trace(ReferencePath(copy.deepcopy(plain), batch, config.train, names), device, bf16=bf16)

    truth, rounded = reference(False), reference(True) if bf16 else None
    fast_trace = trace(FastPath(fast, batch, config.train), device, bf16=bf16)
    bounds = bounds_of(torch.bfloat16 if bf16 else torch.float32)
    return ParityReport(_title(config, fast.model.settings.attention, batch), compare(fast_trace, truth, bounds, rounded))


def reference_of(fast: PretrainStep, config: StepConfig) -> ReferenceStep:
    """The plain path with the weights, rules and losses of `fast`, on its device and in its dtype."""
    model = fast.model
    plain = ReferenceKaleidoBert(model.settings, model.kaleido, model.vocabulary, model.image_size)
    weight = model.pooler.weight
    plain.to(weight.device, weight.dtype).load_state_dict(from_fast(model.state_dict()))
    settings = LossSettings(config.train.task_weights, config.train.losses_on_mismatched, config.reference, fast.itc_block)
    return ReferenceStep(plain, fast.rules, config.train.seed, settings).to(weight.device)


@torch.no_grad()
def spread_norms_and_biases(model: KaleidoBertModel) -> None:
    """Move norms and biases away from 1 and 0."""
    for parameter, role in parameter_roles(model):
        if role != "weight":
            parameter.add_(SPREAD * torch.randn_like(parameter))


def _device(config: StepConfig) -> torch.device:
    model = config.model
    if model.dropout or model.attention_dropout:
        raise ValueError(
            f"model.dropout={model.dropout:g}, model.attention_dropout={model.attention_dropout:g}: the two paths drop "
            "different values, nothing could be compared; give model.dropout=0 model.attention_dropout=0")
    return own_device(config.run.device)


@torch.no_grad()
def _features_ready(step: PretrainStep, batch: Batch) -> Batch:
    """Both paths read the same features where they come from a store, or where patches are encoded in 16 bit whatever
    surrounds them: one bit rounded the other way there would hide everything behind it."""
    patches, encoder = batch.patches, step.model.patch_encoder
    if isinstance(patches, ReadyRows) or isinstance(patches, Pixels) and not encoder.rounds_on(patches.images.device):
        return batch
    plan = step.plan_of(batch)
    if not step.itc_block:
        return replace(batch, patches=ReadyRows(patches.features_and_targets(step.model, plan)[0]))
    features, _, unturned = patches.features_with_unturned(step.model, plan)
    return replace(batch, patches=ReadyRows(features, unturned=unturned))


def _title(config: StepConfig, attention: str, batch: Batch) -> str:
    device = torch.cuda.get_device_name() if config.run.device == "cuda" else "cpu"
    data = config.data.shards or "drawn data"
    return (f"fast path ({attention}, {config.train.precision}) against the plain path (padded, eager, fp32): "
            f"torch {torch.__version__}, {device}, {len(batch.tokens)} samples of {data}, random weights, "
            f"{COMPARED_STEPS} steps at {config.train.learning_rate:g}")
