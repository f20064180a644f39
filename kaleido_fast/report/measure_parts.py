"""HTML of what measures show: their cards, sections, tables, pictures and examples. Knows none of them by name."""

from kaleido_fast.report.page import Markup, card, element, image, section, table
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
        answers = element("div", *(_answer_picture(answer) for answer in example.answers), css="strip")
    else:
        answers = element("ol", *(_answer_text(answer) for answer in example.answers))
    return element("div", given, element("div", answers, css="found"), css="example")


def _answer_picture(answer: Answer) -> Markup:
    score = "" if answer.score is None else f"{answer.score:.2f}"
    return element("div", _content(answer.content), score, css="right" if answer.right else "")


def _answer_text(answer: Answer) -> Markup:
    score = "" if answer.score is None else f" ({answer.score:.2f})"
    return element("li", f"{answer.content}{score}", css="right" if answer.right else "")


def _content(content: str | Picture) -> str | Markup:
    return _picture(content) if isinstance(content, Picture) else content


def _picture(picture: Picture) -> Markup:
    return image(picture.data, picture.kind, picture.description)
