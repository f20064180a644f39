"""What a measure shows in report.html, as data: cards, tables, pictures, examples. report/ makes HTML of it."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Card:
    """One figure that a reader looks for first, at the top of the page."""

    label: str
    value: str
    note: str  # what it is measured by, and what chance gives


@dataclass(frozen=True, slots=True)
class Heading:
    """A title inside a section."""

    text: str


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under a header; the first column names the row."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Picture:
    """An encoded picture."""

    data: bytes
    kind: str  # "jpeg" or "png"
    description: str  # for whoever cannot see it


@dataclass(frozen=True, slots=True)
class Answer:
    """One thing that the model answered, or that is right."""

    content: str | Picture
    right: bool
    score: float | None = None
    rank: int | None = None  # its place, from 1; a gap is shown where places between were left out


@dataclass(frozen=True, slots=True)
class Example:
    """What the model was given, and its answers, best first."""

    given: str | Picture
    note: str  # how it went
    answers: Sequence[Answer]  # all texts (shown as a numbered list) or all pictures (shown in a row)


@dataclass(frozen=True, slots=True)
class Section:
    """A titled part of the page."""

    title: str
    note: str  # the protocol behind the figures, in sentences
    parts: Sequence[Heading | Table | Picture | Example]


def percent(value: float) -> str:
    """A fraction as a percentage with one digit."""
    return f"{100 * value:.1f} %"
