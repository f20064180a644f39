"""The table of downstream tasks. A new one is its own file and a row here (finetune/downstream.py says how)."""

from kaleido_fast.finetune.classes import classes_task
from kaleido_fast.finetune.downstream import Downstream

ROWS = (classes_task("category"), classes_task("subcategory"))
DOWNSTREAM: dict[str, Downstream] = {row.name: row for row in ROWS}


def downstream_task(name: str) -> Downstream:
    """The row of a task.

    Raises:
        ValueError: none is named, or there is no such one.
    """
    if name not in DOWNSTREAM:
        given = f"finetune.task={name}: no such task" if name else "finetune.task: not given"
        raise ValueError(f"{given}; give task=NAME with one of {', '.join(DOWNSTREAM)}")
    return DOWNSTREAM[name]
