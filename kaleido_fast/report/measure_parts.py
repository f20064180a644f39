"""HTML of what measures show: their cards, sections, tables, pictures and examples. Knows none of them by name."""

import re

from kaleido_fast.report.page import Markup, card, element, image, join, section, table
from kaleido_fast.tasks.report_parts import Answer, Card, Example, Heading, Picture, Section, Table


def measure_cards(cards: list[Card]) -> Markup:
    """The figures at the top of the page."""
    return element("div", *(card(one.label, one.value, one.note) for one in cards), css="cards")


def measure_section(shown: Section) -> Markup:
    """A box with a heading, the protocol and the parts."""
    return section(shown.title, element("p", shown.note, css="soft"), *(_part(part) for part in shown.parts))


def _part(part: Heading | Table | Picture | Example) -> Markup:
    match part:
        case Heading():
            return element("h3", part.text)
        case Table():
            return table(part.header, part.rows)
        case Picture():
            return element("div", _picture(part), css="wide")
        case Example():
            return _example(part)


def _example(example: Example) -> Markup:
    given = element("div", _content(example.given), element("p", example.note, css="soft"), css="query")
    if any(isinstance(answer.content, Picture) for answer in example.answers):
        css, shown = "strip", [_answer_picture(answer) for answer in example.answers]
    else:
        right = next((set(_words(str(answer.content))) for answer in example.answers if answer.right), None)
        css, shown = "texts", [_answer_text(answer, right) for answer in example.answers]
    parts: list[Markup] = []
    for number, (answer, markup) in enumerate(zip(example.answers, shown, strict=True)):
        before = example.answers[number - 1].rank if number else None
        gap = answer.rank is not None and before is not None and answer.rank > before + 1
        parts += [element("div", "…", css="gap"), markup] if gap else [markup]
    return element("div", given, element("div", element("div", *parts, css=css), css="found"), css="example")


def _answer_picture(answer: Answer) -> Markup:
    return element("div", _content(answer.content), element("span", _place(answer), css="soft"),
                   css="right" if answer.right else "")


def _answer_text(answer: Answer, right: set[str] | None) -> Markup:
    """A text with its place; words that the right one, whose words are `right`, does not have are marked."""
    return element("div", element("span", _place(answer), css="place soft"), _unlike(str(answer.content), right),
                   css="right" if answer.right else "")


def _place(answer: Answer) -> str:
    rank = "" if answer.rank is None else f"{answer.rank}."
    return " ".join(filter(None, (rank, "" if answer.score is None else f"({answer.score:.2f})")))


def _unlike(text: str, right: set[str] | None) -> Markup:
    pieces = re.split(r"(\s+)", text)
    return join(element("em", piece) if right is not None and set(_words(piece)) - right else piece for piece in pieces)


def _words(text: str) -> list[str]:
    return re.findall(r"[\w'-]+", text.casefold())


def _content(content: str | Picture) -> str | Markup:
    return _picture(content) if isinstance(content, Picture) else content


def _picture(picture: Picture) -> Markup:
    return image(picture.data, picture.kind, picture.description)
