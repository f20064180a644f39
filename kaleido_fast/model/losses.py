"""The losses of pre-training (SPEC 3, 6 'On mismatched samples', 7 'Loss').

total = sum over losses of weight * (sum over the valid rows / their number in the whole optimizer step); the numbers come
from the host, so neither accumulation nor the number of workers changes the gradient. No valid row: 0. ReferenceSettings
select the authors' definitions where ours differ.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from kaleido_fast.kernels.plan_outputs import Plan
from kaleido_fast.kernels.plan_rules import IGNORED
from kaleido_fast.model.color_loss import color_loss
from kaleido_fast.model.counts import counted_samples
from kaleido_fast.model.kaleido_bert import Encoded, KaleidoBertModel
from kaleido_fast.model.settings import ReferenceSettings
from kaleido_fast.model.task_table import CONTRAST, loss_weight


class StepResult(NamedTuple):
    """A micro-batch's part of the step."""

    loss: Tensor  # () fp32, weighted and divided by the step's rows; the only one with a gradient
    loss_sums: dict[str, Tensor]  # by loss, () summed over its valid rows
    correct: dict[str, Tensor]  # by loss with classes, () right answers
    watched: Mapping[str, Tensor] = {}  # by name, () what is neither and worth a line


class Contrasted(NamedTuple):
    """Contrast of a worker's samples (SPEC 10)."""

    loss: Tensor  # () summed
    found: Tensor  # () samples that find their like
    temperature: Tensor  # ()


class LossInputs(NamedTuple):
    """What the losses read besides the model's outputs."""

    plan: Plan
    targets: Tensor  # (B, K + G, num_targets) of the colour tasks, clean
    match: Tensor  # (B,) bool
    present: Tensor  # (B,) bool
    num_rows: Mapping[str, int]  # valid rows of this micro-batch, by loss
    num_step_rows: Mapping[str, float]  # valid rows of the whole optimizer step


def pretraining_losses(
    model: KaleidoBertModel, encoded: Encoded, inputs: LossInputs, weights: Mapping[str, float],
    on_mismatched: Collection[str], reference: ReferenceSettings = ReferenceSettings(),
    contrast: Contrasted | None = None,
) -> StepResult:
    """All active losses of a micro-batch.

    Args:
        weights: loss weights, as `loss_weight` reads them.
        on_mismatched: losses that count on mismatched samples too, besides itm.
        contrast: what it came to, where it is active.
    """
    counted = {loss: counted_samples(loss, inputs.match, inputs.present, on_mismatched) for loss in inputs.num_rows}
    sums: dict[str, Tensor] = {}
    correct: dict[str, Tensor] = {}
    scales = loss_scales(inputs.num_step_rows, weights, reference.amlm_epsilon)
    outputs = model.read_by_heads(encoded, inputs.plan, counted, inputs.num_rows)

    labels = torch.where(inputs.present, inputs.match.long(), IGNORED)
    sums["itm"], correct["itm"] = _classify(model.itm_logits(encoded.pooled), labels)
    sums["amlm"], correct["amlm"] = model.amlm_loss(outputs["amlm"], inputs.plan, counted["amlm"])
    for task in model.tasks:
        logits = model.kaleido_heads[task.name](outputs[task.name])
        if task.num_classes:
            labels = torch.where(counted[task.name], inputs.plan.part(task.rule).label.long(), IGNORED)
            sums[task.name], correct[task.name] = _classify(logits, labels)
            continue
        target = model.color_targets(task, inputs.targets, inputs.plan, counted[task.name], inputs.num_rows[task.name])
        joined = reference.joint_grey_softmax and task.effect == "grey"
        sums[task.name] = color_loss(logits, target, clip=reference.kl_clip, num_joined=task.num_slots if joined else 1).sum()

    watched = {}
    if contrast is not None:
        sums[CONTRAST], correct[CONTRAST] = contrast.loss, contrast.found
        watched["temperature"] = contrast.temperature

    loss = torch.stack([sums[name] * scales[name] for name in sums]).sum()
    return StepResult(loss, {name: value.detach() for name, value in sums.items()}, correct, watched)


def loss_scales(num_step_rows: Mapping[str, float], weights: Mapping[str, float], amlm_epsilon: float) -> dict[str, float]:
    """By loss, what its sum over the step's rows is multiplied by: weight / number of rows.

    With `amlm_epsilon` AMLM's number is that much larger instead of at least one.
    """
    scales = {loss: loss_weight(weights, loss) / max(num_rows, 1.0) for loss, num_rows in num_step_rows.items()}
    if amlm_epsilon:
        scales["amlm"] = loss_weight(weights, "amlm") / (num_step_rows["amlm"] + amlm_epsilon)
    return scales


def _classify(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cross entropy summed over the labelled rows, and how many are right; labels of IGNORED count in neither."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    loss = cross_entropy(wide, labels, ignore_index=IGNORED, reduction="sum")
    return loss, (logits.detach().argmax(-1) == labels).sum()

