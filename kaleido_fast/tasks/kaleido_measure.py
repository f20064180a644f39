"""The kaleido tasks' row: how well each task of the table is solved on held-out samples (SPEC 3 and 9)."""

from collections.abc import Iterator

import numpy as np

from kaleido_fast.data.batches.batch import Batch
from kaleido_fast.model.task_table import TASKS, KaleidoTask
from kaleido_fast.progress_bar import ProgressBar
from kaleido_fast.tasks.heldout import HeldOut
from kaleido_fast.tasks.kaleido_accuracy import measure_kaleido_tasks
from kaleido_fast.tasks.measure import Measure, Measured, Numbers
from kaleido_fast.tasks.report_parts import Card, Section, Table, percent
from kaleido_fast.training.build import rules_for


def _measure(heldout: HeldOut) -> Measured:
    """On the split's first samples, with their own texts."""
    split, settings = heldout.split("measured"), heldout.settings
    count = min(settings.kaleido_samples or split.split.num_samples, split.split.num_samples)
    rules = rules_for(heldout.config, split.split.manifest)
    with ProgressBar(count, "kaleido tasks", "photo") as bar:
        batches = _counted(split.batches(np.arange(count)), bar)
        return Measured(measure_kaleido_tasks(heldout.model, batches, rules, settings.seed))


def _counted(batches: Iterator[Batch], bar: ProgressBar) -> Iterator[Batch]:
    """The batches; the bar moves when one is done with."""
    for batch in batches:
        yield batch
        bar.update(int((batch.host.samples >= 0).sum()))


def _measured_tasks(numbers: Numbers) -> list[KaleidoTask]:
    """The rows of the table of tasks that the run had."""
    return [task for task in TASKS.values() if task.name in numbers["tasks"]]


def _class_tasks(numbers: Numbers) -> list[KaleidoTask]:
    return [task for task in _measured_tasks(numbers) if task.num_classes]


def _headline(numbers: Numbers) -> str:
    return "; ".join(f"{task.name} {percent(numbers['tasks'][task.name])}" for task in _class_tasks(numbers))


def _cards(numbers: Numbers) -> list[Card]:
    return [Card(task.name, percent(numbers["tasks"][task.name]), f"chance {percent(1 / task.num_classes)}")
            for task in _class_tasks(numbers)]


def _section(numbers: Numbers) -> Section:
    rows = []
    for task in _measured_tasks(numbers):
        show = percent if task.num_classes else "{:.3f} nats".format
        chance = percent(1 / task.num_classes) if task.num_classes else ""
        rows.append([task.title, show(numbers["tasks"][task.name]), show(numbers["tasks_level_alone"][task.name]), chance])
    protocol = (
        f"{numbers['tasks_samples']} samples with their own text. Accuracy, for the colour tasks "
        "the mean KL divergence from the clean features (lower is better). Levels overlap in the image, so "
        "untouched levels can give an answer away: the second column drops the other levels' positions."
    )
    return Section("Kaleido tasks", protocol, [Table(["", "all levels", "own level alone", "chance"], rows)])


KALEIDO_TASKS = Measure(
    keys=("tasks", "tasks_level_alone", "tasks_samples"), measure=_measure, headline=_headline, section=_section, cards=_cards)
