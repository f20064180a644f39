"""The table of measures: what a pre-trained model is measured by (SPEC 9). A new one is its own file and a row here."""

from collections.abc import Mapping

from kaleido_fast.tasks.full_set.measure import FULL_SET
from kaleido_fast.tasks.kaleido_measure import KALEIDO_TASKS
from kaleido_fast.tasks.measure import Measure, Numbers
from kaleido_fast.tasks.recognition_measure import RECOGNITION
from kaleido_fast.tasks.retrieval_measure import RETRIEVAL

MEASURES: dict[str, Measure] = {  # in the order in which they are measured and shown
    "retrieval": RETRIEVAL,
    "full_set": FULL_SET,
    "recognition": RECOGNITION,
    "kaleido_tasks": KALEIDO_TASKS,
}


def measures_in(numbers: Numbers, measures: Mapping[str, Measure] = MEASURES) -> list[Measure]:
    """The measures whose figures an eval.json holds.

    Raises:
        ValueError: it holds none of them.
    """
    present = [measure for measure in measures.values() if numbers.keys() >= set(measure.keys)]
    if not present:
        raise ValueError(f"eval.json: holds the figures of none of {', '.join(measures)}; run `kaleido-fast evaluate` again")
    return present


def headline(numbers: Numbers, measures: Mapping[str, Measure] = MEASURES) -> str:
    """The first figures of an eval.json in one line, with their protocol and what chance gives."""
    phrases = (measure.headline(numbers) for measure in measures_in(numbers, measures))
    return "; ".join(phrase for phrase in phrases if phrase)
