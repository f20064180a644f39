"""One pre-training step, the plain way: plan, features, forward, losses."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kaleido_fast.kernels.plan import plan_reference
from kaleido_fast.kernels.plan_outputs import Plan
from kaleido_fast.kernels.plan_rules import PlanRules
from kaleido_fast.reference.kaleido_bert import Features, Outputs, ReferenceKaleidoBert
from kaleido_fast.reference.losses import Losses, LossSettings, pretraining_losses


class Result(NamedTuple):
    """Everything a step computed."""

    loss: Tensor  # ()
    plan: Plan
    features: Features
    outputs: Outputs
    losses: Losses


class ReferenceStep(nn.Module):
    """What training.step.PretrainStep computes of a micro-batch."""

    def __init__(self, model: ReferenceKaleidoBert, rules: PlanRules, seed: int, settings: LossSettings) -> None:
        super().__init__()
        self.model, self.rules, self.settings = model, rules, settings
        self.register_buffer("seed", torch.tensor(seed), persistent=False)

    def forward(self, batch: Any, step_rows: Mapping[str, float] | None = None) -> Result:
        """The losses of `batch` (data.batch.Batch); plan and features are its own where it brings them.

        Args:
            step_rows: rows that the losses divide by, where the batch is a part of an optimizer step.
        """
        plan = self._plan(batch) if batch.plan is None else batch.plan
        features = self._features(batch, plan)
        outputs = self.model(plan, batch.lengths, features)
        losses = pretraining_losses(
            self.model.tasks, self.model.kaleido.grids, outputs.logits, plan, features.targets, batch.match,
            batch.present, self.settings, step_rows)
        return Result(losses.total, plan, features, outputs, losses)

    def _plan(self, batch: Any) -> Plan:
        return plan_reference(batch.tokens, batch.lengths, batch.alignment, batch.keys, batch.image_products,
                              batch.present, self.seed, batch.epochs, self.rules)

    def _features(self, batch: Any, plan: Plan) -> Features:
        if batch.encoded is not None:  # of a store, read as the fast path reads it
            rows = batch.encoded.read(plan.rotation, plan.grey_slots)
            return Features(rows, rows, batch.locations)
        if batch.features is None:
            return self.model.features(batch.images, plan)
        return Features(batch.features, batch.features, batch.locations)
