"""How well the kaleido tasks are solved on held-out samples (SPEC 3 and 9): plain, and each level alone.

Levels overlap in the image, so untouched levels can give a task's answer away; with the level alone the
sequence is the text and that level's positions only.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from kaleido_fast.data.batches.batch import Batch
from kaleido_fast.kernels.geometry import offset_of_grid, positions_of_grid
from kaleido_fast.kernels.plan import plan
from kaleido_fast.kernels.plan_outputs import Plan
from kaleido_fast.kernels.plan_rules import PlanRules
from kaleido_fast.kernels.softmax_kl import softmax_kl
from kaleido_fast.model.heads import patch_rows
from kaleido_fast.model.kaleido_bert import Encoded, KaleidoBertModel
from kaleido_fast.model.task_table import KaleidoTask


@dataclass(slots=True)
class Mean:
    """A running mean over rows."""

    total: float = 0.0
    rows: int = 0

    def add(self, values: Tensor) -> None:
        """Take (n,) values."""
        self.total += float(values.double().sum())
        self.rows += len(values)

    def value(self) -> float:
        """The mean; not a number where no row was seen."""
        return self.total / self.rows if self.rows else float("nan")


@torch.inference_mode()
def measure_kaleido_tasks(
    model: KaleidoBertModel, batches: Iterable[Batch], rules: PlanRules, seed: int
) -> dict[str, dict[str, float] | int]:
    """Accuracy of each class task and mean KL of each colour task, over the valid rows of all batches.

    Args:
        model: in eval mode.
        batches: matched samples under the evaluation epoch, whole groups.
        seed: of the plan.
    Returns:
        eval.json's "tasks", "tasks_level_alone" (the other levels' positions dropped) and "tasks_samples".
    """
    plain = {task.name: Mean() for task in model.tasks}
    alone = {task.name: Mean() for task in model.tasks}
    samples = 0
    for batch in batches:
        drawn = plan(batch.plan_inputs, torch.tensor(seed, device=batch.tokens.device), rules)
        features, targets = batch.patches.features_and_targets(model, drawn)
        encoded = _encode(model, batch, drawn, features, None)
        for task in model.tasks:
            offset = offset_of_grid(model.kaleido.grids, task.grid)
            rows = _rows(model, task, encoded, offset, drawn, targets, batch.present)
            plain[task.name].add(rows)
            by_itself = _encode(model, batch, drawn, features, task)
            alone[task.name].add(_rows(model, task, by_itself, 0, drawn, targets, batch.present))
        samples += int(batch.host.present.sum())
    return {
        "tasks": {name: mean.value() for name, mean in plain.items()},
        "tasks_level_alone": {name: mean.value() for name, mean in alone.items()},
        "tasks_samples": samples,
    }


def _encode(
    model: KaleidoBertModel, batch: Batch, drawn: Plan, features: Tensor, task: KaleidoTask | None
) -> Encoded:
    """The batch under its plan; with a task, that task's level alone."""
    source, levels = drawn.source, None
    if task is not None:
        source = source[:, positions_of_grid(model.kaleido.grids, task.grid)]
        levels = [model.kaleido.grids.index(task.grid)]
    return model.encode(
        drawn.masked_tokens,
        batch.lengths,
        tuple(batch.host.lengths.tolist()),
        features,
        source,
        levels=levels,
        tasks=drawn.tasks,
    )


def _rows(
    model: KaleidoBertModel,
    task: KaleidoTask,
    encoded: Encoded,
    first: int,
    drawn: Plan,
    targets: Tensor,
    present: Tensor,
) -> Tensor:
    """(n,) one value a valid row of the batch: 1 where a class is right, else 0; the KL of a masked patch.

    `first` is where the task's level begins among the positions shown.
    """
    outputs = encoded.sequence[patch_rows(encoded.cumulative, encoded.lengths, first, task.grid**2)]
    head = model.kaleido_heads[task.name]
    if task.num_classes:
        labels = drawn.part(task.rule).label
        valid = present & (labels >= 0)
        return (head(outputs).argmax(dim=1) == labels)[valid]
    slots = drawn.part(task.rule).slots.long()
    member, column = torch.nonzero((slots >= 0) & present[:, None], as_tuple=True)
    slot = slots[member, column]
    clean = targets[member, offset_of_grid(model.kaleido.grids, task.grid) + slot]
    return softmax_kl(head(outputs[member, slot]), clean, torch.ones_like(clean[:, 0]))
