"""What strings may name, read from the source: flags stand where the command line is written, and kernels/ knows no setting.

A library's caller gives arguments and settings, and has no flags: its messages name an `Option`, which the command line spells
as a flag (options.py). Docstrings are held to it too: what spells a flag is wrong when the command line changes.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from kaleido_fast.config import Config
from tests.test_structure import files, place

# Where the command line is written: its arguments, what they do, and how messages spell its options.
COMMAND_LINE = {f"kaleido_fast/{name}.py" for name in ("cli", "verbs", "catalogue_flags", "options")}
ROOMS_VERBS = "kaleido_fast/verbs_"  # of a room each
SESSION = "kaleido_fast/bench/session/"  # a program with arguments of its own, which starts pytest, pip, git and sanitizers
STYLE_SHEET = "kaleido_fast/report/page.py"  # its custom properties begin with two hyphens
FLAG = re.compile(r"(?<![\w-])--([a-z]|$)")
KEY = re.compile(rf"\b({'|'.join(section.name for section in fields(Config))})\.[a-z_]+")


def strings(file: Path) -> Iterator[tuple[int, str]]:
    """Every string in a file with its line: messages, also the fixed parts of formatted ones, and docstrings."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def naming(what: re.Pattern[str], *folders: str) -> dict[str, list[str]]:
    """The strings that name it, by file."""
    named: dict[str, list[str]] = {}
    for file in files(*folders):
        for line, text in strings(file):
            if what.search(text):
                named.setdefault(place(file), []).append(f"line {line}: {text}")
    return named


def test_flags_are_named_where_the_command_line_is_written() -> None:
    named = naming(FLAG, "kaleido_fast", "kernels")
    known = (*COMMAND_LINE, ROOMS_VERBS, SESSION, STYLE_SHEET)
    assert {file: texts for file, texts in named.items() if not file.startswith(known)} == {}
    assert named.keys() >= {"kaleido_fast/cli.py", "kaleido_fast/options.py", f"{SESSION}program.py", STYLE_SHEET}


def test_kernels_name_no_setting() -> None:
    assert naming(KEY, "kernels") == {}
    assert len(naming(KEY, "kaleido_fast")) > 20


@pytest.mark.parametrize(("what", "text", "named"), [
    (FLAG, "give --seed", True), (FLAG, "(--tflops)", True), (FLAG, "--", True), (FLAG, "a--b", False),
    (FLAG, "a --- b", False),
    (KEY, "set data.max_tokens lower", True), (KEY, "set kaleido.mean", True), (KEY, "max_tokens=9 must", False),
])
def test_what_would_be_seen(what: re.Pattern[str], text: str, named: bool) -> None:
    assert bool(what.search(text)) is named
