"""The HTML of the report: one offline page, no request to anywhere; pictures are data URIs."""

import base64
import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

STYLE = """
:root { --ink: #1d2129; --soft: #5b626d; --line: #e3e6ea; --back: #f6f7f9; --right: #2f855a; --wrong: #c2410c; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 28px 18px 60px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 0 0 10px; }
h3 { font-size: 15px; margin: 20px 0 8px; }
p { margin: 0 0 12px; }
.soft { color: var(--soft); }
section { background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: 18px 20px; }
section, .cards { margin-top: 18px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; }
.card { background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: 12px 14px; }
.card b { display: block; font-size: 25px; line-height: 1.25; font-variant-numeric: tabular-nums; }
.card span { display: block; font-size: 13px; color: var(--soft); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 12px 6px 0; text-align: right; white-space: nowrap; }
tr { border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; }
th:first-child, td:first-child { text-align: left; }
.facts td:last-child { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(46%, 240px), 1fr)); gap: 14px; }
figure { margin: 0; }
figure img { width: 100%; height: auto; display: block; }
figcaption { font-size: 13px; font-weight: 600; }
.example { border-top: 1px solid var(--line); padding: 14px 0; display: flex; gap: 16px; flex-wrap: wrap; }
.example img { width: 108px; height: 108px; object-fit: contain; border-radius: 6px; display: block; }
.example > .query { flex: 0 0 190px; font-size: 15px; }
.example > .query p { margin: 6px 0 0; font-size: 13px; }
.example > .found { flex: 1 1 300px; min-width: 0; font-size: 14px; }
.found .gap { border: 0; align-self: center; color: var(--soft); padding: 0 2px; }
.found .right { color: var(--right); font-weight: 600; }
.found em { font-style: normal; color: var(--wrong); }
.texts > div { padding: 2px 0 2px 84px; text-indent: -84px; }
.texts .gap { padding: 0 0 0 104px; line-height: 1; }
.place { display: inline-block; width: 84px; text-indent: 0; font-weight: 400; font-size: 13px; }
.strip { display: flex; gap: 6px; flex-wrap: wrap; }
.strip > div { text-align: center; border: 3px solid transparent; border-radius: 9px; padding: 2px; font-size: 13px; }
.strip > .right { border-color: var(--right); }
summary { cursor: pointer; font-weight: 600; }
pre { overflow-x: auto; font-size: 12.5px; line-height: 1.45; padding: 12px; border-radius: 8px;
  background: var(--back); }
"""


@dataclass(frozen=True, slots=True)
class Markup:
    """A piece of finished HTML; every plain string is escaped on its way in."""

    text: str


def text(value: object) -> str:
    """HTML of a value: markup as it is, anything else escaped."""
    return value.text if isinstance(value, Markup) else html.escape(str(value))


def element(tag: str, *content: object, css: str = "") -> Markup:
    """<tag class=css>content</tag>."""
    attribute = f' class="{css}"' if css else ""
    return Markup(f"<{tag}{attribute}>{''.join(text(item) for item in content)}</{tag}>")


def join(parts: Iterable[object]) -> Markup:
    """The parts one after the other."""
    return Markup("".join(text(part) for part in parts))


def section(title: str, *content: object) -> Markup:
    """A box with a heading."""
    return element("section", element("h2", title), *content)


def image(data: bytes, kind: str, description: str) -> Markup:
    """An embedded picture; `kind` is "png" or "jpeg"."""
    encoded = base64.b64encode(data).decode("ascii")
    return Markup(f'<img src="data:image/{kind};base64,{encoded}" alt="{html.escape(description)}">')


def card(label: str, value: str, note: str) -> Markup:
    """One headline number with what it means."""
    return element("div", element("span", label), element("b", value), element("span", note), css="card")


def table(header: Sequence[object], rows: Iterable[Sequence[object]], css: str = "") -> Markup:
    """A table that scrolls sideways where the screen is narrow; without `header` it has none."""
    head = element("tr", *(element("th", cell) for cell in header)) if header else Markup("")
    body = join(element("tr", *(element("td", cell) for cell in row)) for row in rows)
    return element("div", element("table", head, body, css=css), css="wide")


def page(title: str, *content: object) -> str:
    """The whole document."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body>{element('main', *content).text}</body></html>\n"
    )
