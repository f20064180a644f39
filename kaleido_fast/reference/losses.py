"""The losses of pre-training, the plain way (SPEC 3, 6 'On mismatched samples', 7 'Loss').

Every loss is a mean over the rows that count: a sample's class, a masked token, a masked slot. Which rows count is read
off the labels. The total is the weighted sum of the means.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from kaleido_fast.kernels.geometry import positions_of_grid
from kaleido_fast.kernels.plan_outputs import Plan
from kaleido_fast.kernels.plan_rules import IGNORED
from kaleido_fast.model.settings import ReferenceSettings
from kaleido_fast.model.task_table import CONTRAST, KaleidoTask, loss_weight, papers_class_tasks
from kaleido_fast.reference.kaleido_bert import at_slots

LEAST_PROBABILITY = 1e-7  # under kl_clip


@dataclass(frozen=True, slots=True)
class LossSettings:
    """Weights, what counts on mismatched samples, and the authors' definitions where they are asked for."""

    weights: Mapping[str, float] = field(default_factory=dict)  # as `loss_weight` reads them
    on_mismatched: Collection[str] = field(default_factory=papers_class_tasks)  # besides itm
    reference: ReferenceSettings = field(default_factory=ReferenceSettings)
    itc_block: int = 0  # samples of a block of contrast; 0 where it is off


class Losses(NamedTuple):
    """The losses of a batch."""

    total: Tensor  # ()
    sums: dict[str, Tensor]  # by loss, () over the rows that count
    means: dict[str, Tensor]  # by loss, ()
    counted: dict[str, Tensor]  # by loss, bool: which rows of its logits count


def reference_losses(
    tasks: Sequence[KaleidoTask], grids: Sequence[int], logits: Mapping[str, Tensor], plan: Plan, targets: Tensor,
    match: Tensor, present: Tensor, settings: LossSettings, num_step_rows: Mapping[str, float] | None = None,
    contrast: Tensor | None = None,
) -> Losses:
    """All active losses.

    Args:
        logits: those of `Outputs`.
        targets: (B, K + G, num_targets) of the colour tasks.
        match, present: (B,) bool.
        num_step_rows: rows to divide by, where the batch is a part of an optimizer step; the batch's own without.
        contrast: (B,) of each sample, from `contrast_rows`, where it is active.
    """
    def counts(loss: str) -> Tensor:
        return present if loss == "itm" or loss in settings.on_mismatched else present & match

    authors = settings.reference
    rows = {"itm": cross_entropy(logits["itm"], match.long()), "amlm": cross_entropy(logits["amlm"], word_labels(plan))}
    counted = {"itm": counts("itm"), "amlm": counts("amlm")[:, None] & (word_labels(plan) != IGNORED)}
    for task in tasks:
        part = plan.part(task.rule)
        if task.num_classes:
            labels = part.label.long()
            rows[task.name] = cross_entropy(logits[task.name], labels)
            counted[task.name] = counts(task.name) & (labels != IGNORED)
        else:
            slots = part.slots
            target = at_slots(targets[:, positions_of_grid(grids, task.grid)], slots)
            joint = authors.joint_grey_softmax and task.effect == "grey"
            rows[task.name] = divergence(logits[task.name], target, joint=joint, clip=authors.kl_clip)
            counted[task.name] = counts(task.name)[:, None] & (slots >= 0)

    if contrast is not None:
        rows[CONTRAST], counted[CONTRAST] = contrast, present

    sums = {name: values[counted[name]].sum() for name, values in rows.items()}
    means = {}
    for name, value in sums.items():
        number = torch.as_tensor(counted[name].sum() if num_step_rows is None else num_step_rows[name]).to(value)
        means[name] = value / (number.clamp(min=1) + (authors.amlm_epsilon if name == "amlm" else 0.0))
    total = torch.stack([loss_weight(settings.weights, name) * mean for name, mean in means.items()]).sum()
    return Losses(total, sums, means, counted)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-log softmax(logits)[label] of each row, (…, classes) and (…,) -> (…,); of a label below 0 what nobody counts."""
    return -at_least_fp32(logits).log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]


def divergence(prediction: Tensor, target: Tensor, *, joint: bool, clip: bool) -> Tensor:
    """KL(softmax(target) || softmax(prediction)) of each slot, (B, slots, F) -> (B, slots).

    Args:
        joint: one softmax over all of a sample's targets; each slot's then sums to a part of 1.
        clip: both probabilities to [1e-7, 1]; where one was clipped it has no gradient.
    """
    prediction = at_least_fp32(prediction)
    target = target.to(prediction.dtype)
    log_q = prediction.log_softmax(-1)
    log_p = target.flatten(1).log_softmax(-1).view_as(target) if joint else target.log_softmax(-1)
    if clip:
        log_p, log_q = (x.exp().clamp(LEAST_PROBABILITY, 1.0).log() for x in (log_p, log_q))
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def word_labels(plan: Plan) -> Tensor:
    """(B, T) int64: the id that stood at each masked token, IGNORED elsewhere."""
    batch, width = plan.masked_tokens.shape
    labels = torch.full((batch, width + 1), IGNORED, device=plan.masked_tokens.device)
    place = torch.where(plan.masked_positions < 0, width, plan.masked_positions).long()
    return labels.scatter(1, place, plan.masked_labels.long())[:, :width]


def at_least_fp32(x: Tensor) -> Tensor:
    """Losses are computed in fp32, or in float64 where the model is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
