"""kernels/ knows nothing of settings: no string in it, message or docstring, names a config key or a flag."""

import ast
import re
from pathlib import Path

import pytest

import kaleido_fast.kernels

FILES = sorted(Path(kaleido_fast.kernels.__path__[0]).glob("*.py"))
KEY = re.compile(r"\b(align|data|eval|init|kaleido|model|reference|run|train)\.[a-z_]+|(^|\s)--[a-z]")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_strings_name_no_setting(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            assert not KEY.search(node.value), f"{file.name}:{node.lineno}: {node.value!r}"


@pytest.mark.parametrize("text", ["set data.max_tokens lower", "set kaleido.mean", "give --seed"])
def test_what_would_be_seen(text: str) -> None:
    assert KEY.search(text)
