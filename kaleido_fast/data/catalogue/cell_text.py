"""The text of a table's cell: what stands for nothing is empty, markup of web pages becomes plain text."""

import html
import re

NOTHING = frozenset({"nan", "-nan", r"\n", "null", "(null)", "none", "n/a", "#n/a", "<na>", "nat"})  # pandas, SQL, Spark, Excel
_BLOCKS = "address|article|blockquote|br|center|dd|div|dl|dt|figure|h[1-6]|hr|img|li|ol|p|section|table|tbody|td|th|thead|tr|ul"
_INLINE = "a|abbr|b|big|code|em|font|i|ins|mark|s|small|span|strike|strong|sub|sup|tt|u"
_ATTRIBUTES = r"""(?:\s(?:[^<>"']|"[^"]*"|'[^']*')*)?/?>"""
HIDDEN = re.compile(rf"<!--.*?-->|<(script|style)\b{_ATTRIBUTES[:-1]}>.*?</\1\s*>", re.DOTALL | re.IGNORECASE)
BLOCK = re.compile(rf"</?(?:{_BLOCKS}){_ATTRIBUTES}", re.IGNORECASE)
INLINE = re.compile(rf"</?(?:{_INLINE}){_ATTRIBUTES}", re.IGNORECASE)
ENTITY = re.compile(r"&(?:[A-Za-z][A-Za-z0-9]{1,30}|#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6});")
MOST_ROUNDS = 3  # entities are sometimes written as entities


def is_nothing(cell: str) -> bool:
    """Whether a stripped cell holds what tools write for a value that is not there."""
    return len(cell) <= 6 and cell.lower() in NOTHING


def plain_text(text: str) -> str:
    """Without tags, comments, scripts and styles, its entities decoded; a text without any is the same one."""
    plain = text
    for _ in range(MOST_ROUNDS):
        if "<" not in plain and "&" not in plain:
            break
        before = plain
        plain = INLINE.sub("", BLOCK.sub(" ", HIDDEN.sub(" ", plain)))
        plain = ENTITY.sub(lambda entity: html.unescape(entity[0]), plain)
        if plain == before:
            break
    return text if plain == text else " ".join(plain.split())
