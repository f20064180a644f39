"""One pre-training step, the plain way: plan, features, forward, losses."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kaleido_fast.data.batches.batch import Batch
from kaleido_fast.kernels.plan import plan_reference
from kaleido_fast.kernels.plan_outputs import Plan
from kaleido_fast.kernels.plan_rules import PlanRules
from kaleido_fast.reference.contrast import contrast_rows
from kaleido_fast.reference.kaleido_bert import Features, Outputs, ReferenceKaleidoBert
from kaleido_fast.reference.losses import Losses, LossSettings, reference_losses


class ReferenceResult(NamedTuple):
    """Everything a step computed."""

    loss: Tensor  # ()
    plan: Plan
    features: Features
    outputs: Outputs
    losses: Losses


class ReferenceStep(nn.Module):
    """What training.step.PretrainStep computes of a micro-batch."""

    seed: Tensor  # () int64, of the plan

    def __init__(self, model: ReferenceKaleidoBert, rules: PlanRules, seed: int, settings: LossSettings) -> None:
        super().__init__()
        self.model, self.rules, self.settings = model, rules, settings
        self.register_buffer("seed", torch.tensor(seed), persistent=False)

    def forward(self, batch: Batch, num_step_rows: Mapping[str, float] | None = None) -> ReferenceResult:
        """The losses of `batch`, under its own plan where it has one.

        Args:
            num_step_rows: rows that the losses divide by, where the batch is a part of an optimizer step.
        """
        plan = self._plan(batch) if batch.plan is None else batch.plan
        features, own = self._features(batch, plan), batch.own_texts if self.settings.itc_block else None
        outputs = self.model(plan, batch.lengths, features, own)
        contrast = None
        if outputs.compared is not None and own is not None:
            contrast = contrast_rows(
                outputs.compared, batch.image_products, own.tokens, batch.present, self.settings.itc_block)
        losses = reference_losses(
            self.model.tasks, self.model.kaleido.grids, outputs.logits, plan, features.targets, batch.match,
            batch.present, self.settings, num_step_rows, contrast)
        return ReferenceResult(losses.total, plan, features, outputs, losses)

    def _features(self, batch: Batch, plan: Plan) -> Features:
        patches = batch.patches
        if not self.settings.itc_block:
            return Features(*patches.features_and_targets(self.model, plan), patches.locations)
        rows, targets, unturned = patches.features_with_unturned(self.model, plan)
        return Features(rows, targets, patches.locations, unturned)

    def _plan(self, batch: Batch) -> Plan:
        return plan_reference(batch.plan_inputs, self.seed, self.rules)
