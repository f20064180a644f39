"""The five kaleido tasks as a table, and what the settings make of it (SPEC 3)."""

import difflib
from dataclasses import dataclass
from typing import Literal

from kaleido_fast.kernels.plan_rules import PlanRules
from kaleido_fast.model.settings import KaleidoSettings


@dataclass(frozen=True, slots=True)
class KaleidoTask:
    """One row of SPEC 3's table."""

    name: str
    grid: int  # the level's image is grid x grid patches
    kind: Literal["class", "color"]  # a class of the whole level, or the clean features of its masked slots
    num_classes: int = 0  # of a "class" task
    label: str = ""  # field of the plan that holds the class
    slots: str = ""  # field of the plan that holds a "color" task's masked slots


TASKS = (
    KaleidoTask("rotation", 1, "class", num_classes=4, label="rotation"),
    KaleidoTask("jigsaw", 2, "class", num_classes=24, label="permutation"),
    KaleidoTask("camouflage", 3, "class", num_classes=9, label="camouflage_label"),
    KaleidoTask("grey_to_color", 4, "color", slots="grey_slots"),
    KaleidoTask("blank_to_color", 5, "color", slots="blank_slots"),
)
LOSSES = ("amlm", "itm", *(task.name for task in TASKS))


def active_tasks(settings: KaleidoSettings) -> tuple[KaleidoTask, ...]:
    """The tasks that are on; blank-to-colour on the settings' own grid."""
    on = [task for task in TASKS if task.name in settings.tasks]
    blank = KaleidoTask("blank_to_color", settings.blank_grid, "color", slots="blank_slots")
    return tuple(blank if task.name == "blank_to_color" else task for task in on)


def num_slots(task: KaleidoTask, settings: KaleidoSettings) -> int:
    """Masked slots a sample of a colour task."""
    return {"grey_slots": settings.num_grey, "blank_slots": settings.num_blank}[task.slots]


def plan_rules(settings: KaleidoSettings, *, mask_id: int, ordinary_first: int, ordinary_last: int) -> PlanRules:
    """What the plan needs of the settings and the vocabulary."""
    on = set(settings.tasks)
    return PlanRules(
        mask_id=mask_id, ordinary_first=ordinary_first, ordinary_last=ordinary_last, grids=settings.grids,
        rotation="rotation" in on, jigsaw="jigsaw" in on, camouflage="camouflage" in on,
        num_grey=settings.num_grey if "grey_to_color" in on else 0,
        num_blank=settings.num_blank if "blank_to_color" in on else 0,
        blank_grid=settings.blank_grid, max_masked_tokens=settings.max_masked_tokens,
        guided=settings.masking == "guided",
    )


def check_kaleido_settings(settings: KaleidoSettings) -> None:
    """Refuse unknown tasks, and tasks whose level is not among the grids.

    Raises:
        ValueError: names the key and what is allowed.
    """
    names = [task.name for task in TASKS]
    for name in settings.tasks:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1, cutoff=0.3)
            raise ValueError(f"kaleido.tasks: unknown task '{name}'; did you mean '{(near or names)[0]}'?")
    plan_rules(settings, mask_id=0, ordinary_first=0, ordinary_last=0)
    for name in ("num_grey", "num_blank"):
        task = "grey_to_color" if name == "num_grey" else "blank_to_color"
        if task in settings.tasks and getattr(settings, name) < 1:
            raise ValueError(f"kaleido.{name}=0 leaves {task} nothing to do; take it out of kaleido.tasks")
