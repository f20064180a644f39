"""The table of downstream tasks. A new one is its own file and a row here (finetune/downstream.py says how)."""

from collections.abc import Mapping

from kaleido_fast.finetune.captioning.step import CAPTIONING_TASK
from kaleido_fast.finetune.classes import classes_task
from kaleido_fast.finetune.downstream import Downstream
from kaleido_fast.finetune.retrieval import RETRIEVAL_TASK
from kaleido_fast.tasks.measure import Measure
from kaleido_fast.tasks.measures import MEASURES

ROWS = (classes_task("category"), classes_task("subcategory"), RETRIEVAL_TASK, CAPTIONING_TASK)
DOWNSTREAM: dict[str, Downstream] = {row.name: row for row in ROWS}


def measures_of(task: str) -> Mapping[str, Measure]:
    """What a run is measured by: a pre-trained one (task "") or a fine-tuned one.

    Raises:
        ValueError: there is no such task.
    """
    return downstream_task(task).measures if task else MEASURES


def downstream_task(name: str) -> Downstream:
    """The row of a task.

    Raises:
        ValueError: none is named, or there is no such one.
    """
    if name not in DOWNSTREAM:
        given = f"finetune.task={name}: no such task" if name else "finetune.task: not given"
        raise ValueError(f"{given}; give task=NAME with one of {', '.join(DOWNSTREAM)}")
    return DOWNSTREAM[name]
