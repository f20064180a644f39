"""What the settings make of the table of kaleido tasks (task_table.py): which are on, on which grid, with how many slots."""

import difflib
import itertools
from dataclasses import replace

from kaleido_fast.data.store.photograph_rows import PhotographRows
from kaleido_fast.kernels.geometry import num_positions
from kaleido_fast.kernels.plan_rules import PlanRules
from kaleido_fast.kernels.tasks import total_greyed
from kaleido_fast.model.settings import KaleidoSettings
from kaleido_fast.model.task_table import PAPERS_TASKS, TASKS, KaleidoTask


def active_tasks(settings: KaleidoSettings) -> tuple[KaleidoTask, ...]:
    """The tasks that are on, in the table's order, each as the settings change it.

    Raises:
        ValueError: a name that is not in the table.
    """
    _require_known(settings)
    return tuple(replace(task, grid=_grid(task, settings), num_slots=_num_slots(task, settings))
                 for task in TASKS.values() if task.name in settings.tasks)


def num_rows(settings: KaleidoSettings) -> int:
    """Patches of a sample to encode, K + G (SPEC 2 'Rows')."""
    return num_positions(settings.grids) + total_greyed([task.rule for task in active_tasks(settings)])


def stored_rows(settings: KaleidoSettings) -> PhotographRows:
    """What a feature store has of a photograph: enough for the paper's tasks, on or off, and for others that are on."""
    tasks = [task for task in TASKS.values() if task.name in (*PAPERS_TASKS, *settings.tasks)]
    return PhotographRows.of_tasks(settings.grids, [task.rule for task in tasks])


def plan_rules(settings: KaleidoSettings, *, mask_id: int, ordinary_first: int, ordinary_last: int) -> PlanRules:
    """What the plan needs of the settings and the vocabulary."""
    return PlanRules(
        mask_id=mask_id, ordinary_first=ordinary_first, ordinary_last=ordinary_last,
        tasks=tuple(task.rule for task in active_tasks(settings)), grids=settings.grids,
        max_masked_tokens=settings.max_masked_tokens, guided=settings.masking == "guided",
    )


def check_kaleido_settings(settings: KaleidoSettings) -> None:
    """Refuse unknown tasks, and tasks that cannot be drawn together or on these grids.

    Raises:
        ValueError: names the key and what is allowed.
    """
    _require_known(settings)
    on = [task for task in TASKS.values() if task.name in settings.tasks]
    for task in on:
        if (grid := _grid(task, settings)) not in settings.grids:
            advice = f"give another kaleido.{task.grid_key}" if task.grid_key else "add that grid"
            raise ValueError(f"kaleido.tasks: {task.name} changes the patches of grid {grid}, found "
                             f"kaleido.grids={list(settings.grids)}; {advice}, or take {task.name} out of kaleido.tasks")
        if task.num_slots_key:
            _check_num_slots(task, _num_slots(task, settings), _grid(task, settings) ** 2)
    for one, other in itertools.combinations(on, 2):
        if _grid(one, settings) == _grid(other, settings):
            raise ValueError(f"kaleido.tasks: {one.name} and {other.name} both change the patches of grid "
                             f"{_grid(one, settings)}; a grid has one task, take one out")
    try:
        plan_rules(settings, mask_id=0, ordinary_first=0, ordinary_last=0)
    except ValueError as error:
        raise ValueError(f"kaleido.{error}") from None  # which begins with a field of PlanRules, of the setting's name


def _require_known(settings: KaleidoSettings) -> None:
    for name in settings.tasks:
        if name not in TASKS:
            near = difflib.get_close_matches(name, TASKS, n=1, cutoff=0.3)
            raise ValueError(f"kaleido.tasks: unknown task '{name}'; did you mean '{(near or list(TASKS))[0]}'?")


def _check_num_slots(task: KaleidoTask, num_slots: int, most: int) -> None:
    if not num_slots:
        raise ValueError(f"kaleido.{task.num_slots_key}=0 leaves {task.name} nothing to do; take it out of kaleido.tasks")
    if not 1 <= num_slots <= most:
        raise ValueError(f"kaleido.{task.num_slots_key}={num_slots} must lie in 1..{most}, the patches of {task.name}'s grid")


def _grid(task: KaleidoTask, settings: KaleidoSettings) -> int:
    return getattr(settings, task.grid_key) if task.grid_key else task.grid


def _num_slots(task: KaleidoTask, settings: KaleidoSettings) -> int:
    return getattr(settings, task.num_slots_key) if task.num_slots_key else task.num_slots
