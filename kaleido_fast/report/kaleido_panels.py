"""A photograph's patches under the kaleido tasks, clean and changed, as panels of a figure.

They are drawn from the operations' own outputs: the patches of `cut`, un-normalised, at the rows that the plan's `source`
names. Nothing is turned, moved or greyed for the picture's sake.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.patches import Rectangle
from torch import Tensor

from kaleido_fast.kernels.cut import cut
from kaleido_fast.kernels.geometry import positions_of_grid
from kaleido_fast.kernels.plan_outputs import Plan
from kaleido_fast.kernels.plan_rules import NONE, PlanRules
from kaleido_fast.kernels.tasks import NUM_TURNS, PERMUTATIONS, TaskRule
from kaleido_fast.model.settings import KaleidoSettings
from kaleido_fast.model.task_table import KaleidoTask

GAP = 0.06  # between patches, in patch sides
MARK = "#d9480f"  # frame around what a task has changed


@dataclass(frozen=True, slots=True)
class Panel:
    """A level's patches as the figure shows them."""

    patches: list[Tensor | None]  # n*n of (P, P, 3) in [0, 1]; None is blank
    marked: set[int]  # slots with a frame
    numbers: list[int] | None  # written into the patches: where each one belongs


def caption(drawn: Plan, row: int, task: KaleidoTask) -> str:
    """The task's name, and below it what it did to a sample."""
    label, slots = (tensor[row] for tensor in drawn.part(task.rule))
    done = {
        "turn": f"turned by {360 // NUM_TURNS * int(label)}°",
        "permute": f"permutation {int(label)} of {len(PERMUTATIONS)}",
        "swap": f"{_slots(slots)} of another product",
        "grey": f"{_slots(slots)} in grey",
        "blank": f"{_slots(slots)} blank",
    }
    return f"{task.title}\n{done[task.effect]}"


def changes(drawn: Plan, row: int, task: TaskRule, rules: PlanRules) -> bool:
    """Whether a task's level is shown otherwise than it is."""
    if task.effect == "turn":
        return bool(drawn.part(task).label[row] > 0)
    level = positions_of_grid(rules.grids, task.grid)
    clean = row * rules.num_rows + torch.arange(rules.num_positions)
    return bool((drawn.source[row, level] != clean[level]).any())


def _slots(slots: Tensor) -> str:
    names = ", ".join(str(int(slot)) for slot in slots)
    return f"slot{'s' if len(slots) > 1 else ''} {names}"


class TaskPanels:
    """The patches of a batch, clean and under its plan."""

    def __init__(self, images: Tensor, drawn: Plan, kaleido: KaleidoSettings) -> None:
        self._drawn, self._kaleido = drawn, kaleido
        none = drawn.labels[:, :0]
        self._clean = self._cut(images, none, none, ())
        self._rows = self._cut(images, drawn.labels, drawn.slots.clamp(min=0), drawn.tasks)
        self._positions = drawn.source.shape[1]

    def clean(self, row: int, task: KaleidoTask) -> Panel:
        positions = self._clean[row * self._positions : (row + 1) * self._positions]
        numbers = list(range(1, task.grid**2 + 1)) if task.effect == "permute" else None
        return Panel([*positions[positions_of_grid(self._kaleido.grids, task.grid)]], set(), numbers)

    def changed(self, row: int, task: KaleidoTask) -> Panel:
        source = self._drawn.source[row, positions_of_grid(self._kaleido.grids, task.grid)].tolist()
        label, slots = (tensor[row] for tensor in self._drawn.part(task.rule))
        numbers = [1 + place for place in PERMUTATIONS[int(label)]] if task.effect == "permute" else None
        patches = [None if place == NONE else self._rows[place] for place in source]
        return Panel(patches, {int(slot) for slot in slots}, numbers)

    def _cut(self, images: Tensor, labels: Tensor, slots: Tensor, tasks: Sequence[TaskRule]) -> Tensor:
        """(B * (K + G), P, P, 3) in [0, 1]."""
        kaleido = self._kaleido
        patches = cut(
            images,
            labels,
            slots,
            grids=kaleido.grids,
            tasks=tasks,
            patch_size=kaleido.patch_size,
            mean=kaleido.mean,
            std=kaleido.std,
        )
        return (patches.permute(0, 2, 3, 1) * torch.tensor(kaleido.std) + torch.tensor(kaleido.mean)).clamp(
            0, 1
        )


def show_panel(axes: Any, grid: int, panel: Panel) -> None:
    """Draw a level's patches."""
    step = 1 + GAP
    for slot, patch in enumerate(panel.patches):
        x, y = slot % grid * step, slot // grid * step
        if patch is None:
            axes.add_patch(
                Rectangle((x, y), 1, 1, facecolor="#eceef1", edgecolor="#b9bec6", hatch="///", linewidth=0)
            )
        else:
            axes.imshow(patch.numpy(), extent=(x, x + 1, y + 1, y), interpolation="bilinear")
        edge, width = (MARK, 1.6) if slot in panel.marked else ("#d5d9df", 0.6)
        axes.add_patch(Rectangle((x, y), 1, 1, fill=False, edgecolor=edge, linewidth=width))
        if panel.numbers:
            axes.text(
                x + 0.07,
                y + 0.08,
                str(panel.numbers[slot]),
                fontsize=8,
                va="top",
                color="white",
                bbox={
                    "boxstyle": "round,pad=0.2",
                    "facecolor": "#1d2129",
                    "edgecolor": "none",
                    "alpha": 0.75,
                },
            )
    axes.set(xlim=(-GAP, grid * step), ylim=(grid * step, -GAP), aspect="equal")
    axes.axis("off")
