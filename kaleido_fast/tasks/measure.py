"""The type of a row of MEASURES: all that evaluation, headline and report know of one measure.

Who fills what: a measure's own file defines one `Measure`; `tasks/measures.py` puts it into the table that a pre-trained
model is measured by. `evaluate` calls `samples` and `measure` and joins what comes back into eval.json and examples.json;
`headline` and report.html show what the rows make of those files' contents, also long after the run, from the files alone.

A downstream task has such a row too: beside its batches and its loss it names one Measure, computed by the
fine-tuned model's own head, and hands `evaluate` and the report a table that holds it. So captions with their scores, or a
confusion picture, need nothing that is not here: numbers, cards, a section of tables and pictures, examples.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kaleido_fast.tasks.heldout import HeldOut, SplitRole
from kaleido_fast.tasks.products import Products
from kaleido_fast.tasks.report_parts import Card, Section
from kaleido_fast.tasks.settings import EvalSettings

Numbers = Mapping[str, Any]  # the contents of eval.json
Examples = Mapping[str, Any]  # the contents of examples.json: lists of examples by name, and "pictures"


@dataclass(frozen=True, slots=True)
class Measured:
    """What one measure found."""

    numbers: dict[str, Any]  # its part of eval.json: the keys that its row names
    examples: dict[str, list[Any]] = field(default_factory=dict)  # its part of examples.json
    pictures: dict[str, str] = field(default_factory=dict)  # base64 JPEGs by sample number, shared by all measures
    per_sample: list[dict[str, Any]] = field(default_factory=list)  # a line each for whoever asks: a query, a product


def _no_samples(role: SplitRole, products: Products, settings: EvalSettings) -> np.ndarray:
    return np.empty(0, np.int64)


def _always(settings: EvalSettings) -> bool:
    return True


def _no_cards(numbers: Numbers) -> list[Card]:
    return []


def _no_examples(examples: Examples) -> Section | None:
    return None


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure.

    Args:
        keys: top-level keys of eval.json that it alone writes; where a file lacks one, the measure is not shown.
        further: keys that it writes of some models, or where it is asked for them.
        measure: computes it; photographs that are not among `samples` cannot be asked of the encoder.
        headline: its phrase of the line that `evaluate` and `report` print; "" where it has none.
        section: its section of the report's numbers.
        samples: (n,) int64 sample numbers of a split that it needs encoded, clean. All measures' photographs are decoded
            and encoded together, each once.
        cards: its figures at the top of the report.
        examples: its section of examples; None where there are none.
        asked: whether the settings ask for it; where they do not, nothing of it is computed.
    """

    keys: tuple[str, ...]
    measure: Callable[[HeldOut], Measured]
    headline: Callable[[Numbers], str]
    section: Callable[[Numbers], Section]
    samples: Callable[[SplitRole, Products, EvalSettings], np.ndarray] = _no_samples
    cards: Callable[[Numbers], list[Card]] = _no_cards
    examples: Callable[[Examples], Section | None] = _no_examples
    further: tuple[str, ...] = ()
    asked: Callable[[EvalSettings], bool] = _always
