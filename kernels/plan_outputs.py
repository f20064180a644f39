"""What a plan is drawn from, what it consists of, and the shapes of its parts."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from kaleido_fast.kernels.plan_rules import PlanRules
from kaleido_fast.kernels.tasks import TaskRule, first_slots


class PlanInputs(NamedTuple):
    """What a batch's plan depends on besides seed and rules; whole groups, row b is member b % 16 of its group.

    Neither the ITM label nor the text's product: a mask that knew them would give the label away.
    """

    tokens: Tensor  # (B, T) int32, [CLS] ... [SEP], then anything
    lengths: Tensor  # (B,) int32, [CLS] and [SEP] included
    alignment: Tensor  # (B, T) int64, bit p: the token goes with position p
    keys: Tensor  # (B,) int64 holding the bits of the sample keys
    products: Tensor  # (B,) int64, of the photographs
    present: Tensor  # (B,) bool, False for a hole: it stays clean, masks nothing and is nobody's donor
    epochs: Tensor  # (B,) int64, at most EVALUATION_EPOCH


class TaskPart(NamedTuple):
    """What a plan holds for one task."""

    label: Tensor  # (B,)
    slots: Tensor  # (B, num_slots)


class Plan(NamedTuple):
    """A batch's plan; tensors are int32. `tasks` says what the columns of labels and slots belong to."""

    labels: Tensor  # (B, tasks) quarter turns, permutation (both 0 in a hole), swapped slot; IGNORED where there is no answer
    slots: Tensor  # (B, sum of counts) of each task ascending; NONE in a hole
    donors: Tensor  # (B, swaps) row of the batch whose patch a swap shows; NONE without
    donor_slots: Tensor  # (B, swaps) that patch's slot; NONE without
    source: Tensor  # (B, K) encoded row of each position, b * (K + G) + row; NONE: blank
    masked_tokens: Tensor  # (B, T) ids after masking
    masked_positions: Tensor  # (B, M) ascending, then NONE; M = max_masked_tokens
    masked_labels: Tensor  # (B, M) original ids, then IGNORED
    num_masked: Tensor  # (B,)
    tasks: tuple[TaskRule, ...]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All of it but the tasks."""
        return self[:-1]

    def map(self, change: Callable[[Tensor], Tensor]) -> "Plan":
        """The plan with every tensor changed, such as moved to another device."""
        return Plan._make((*(change(tensor) for tensor in self.tensors), self.tasks))

    def part(self, task: TaskRule) -> TaskPart:
        """What is planned for one of the tasks.

        Raises:
            ValueError: the plan was drawn without it.
        """
        if task not in self.tasks:
            drawn = ", ".join(_named(other) for other in self.tasks) or "none"
            raise ValueError(f"plan: task={_named(task)} is not one that it was drawn for, which are {drawn}; give one of "
                             "these, or draw it with that task")
        column = self.tasks.index(task)
        first = first_slots(self.tasks)[column]
        return TaskPart(self.labels[:, column], self.slots[:, first : first + task.num_slots])


def _named(task: TaskRule) -> str:
    """A task in a message."""
    return f"{task.effect} on grid {task.grid}" + (f" of {task.num_slots} slots" if task.num_slots else "")


def output_shapes(batch: int, width: int, rules: PlanRules) -> tuple[tuple[int, ...], ...]:
    """Shapes of a plan's tensors, for B = `batch` and T = `width`."""
    swaps, masked = sum(task.effect == "swap" for task in rules.tasks), rules.max_masked_tokens
    num_slots = sum(task.num_slots for task in rules.tasks)
    columns = (len(rules.tasks), num_slots, swaps, swaps, rules.num_positions, width, masked, masked)
    return (*((batch, count) for count in columns), (batch,))
