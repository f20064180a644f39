"""What the pages tell a user exists: commands, settings, files, links; and every `SPEC n` of the code has its section."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from kaleido_fast.cli import _parse
from kaleido_fast.config import Config, load_config
from kaleido_fast.settings import settings_of
from kaleido_fast.verbs import parity_config
from tests.places import REPO

PAGES = {str(page.relative_to(REPO)): page.read_text("utf-8")
         for page in [*sorted(REPO.glob("[A-Z]*.md")), *sorted(REPO.glob("docs/*.md"))]}
FOLDERS = ("kernels/", "kaleido_fast/", "configs/", "benchmarks/", "tests/", "docs/", "examples/")
PLACEHOLDERS = ("key=value", "…")  # a user's own settings


def commands(text: str) -> Iterator[list[str]]:
    """The arguments of each kaleido-fast command in the indented blocks of a page."""
    joined = re.sub(r"\\\n\s+", " ", text)
    for line in re.findall(r"^ {4}(\S.*)$", joined, re.M):
        found = re.match(r"(kaleido-fast|(torchrun|deepspeed|srun|python) .*?(-m|--module) kaleido_fast) ", line)
        if found:
            words = shlex.split(line[found.end():], comments=True)
            yield [word.replace("CONFIG.yaml", "configs/demo.yaml") for word in words if word not in PLACEHOLDERS]


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_their_settings_exist(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPO)
    for arguments in commands(PAGES[page]):
        if "[key=value" in arguments:  # a synopsis
            continue
        options = _parse(arguments)
        if options.verb == "parity":
            parity_config(options.arguments)
        elif hasattr(options, "overrides"):
            load_config(getattr(options, "config", "configs/demo.yaml"), options.overrides)


def test_commands_are_found() -> None:
    """The test above must not pass by seeing none."""
    verbs = {arguments[0] for page in PAGES.values() for arguments in commands(page)}
    assert verbs >= {"prepare", "data", "encode", "align", "align-eval", "pretrain", "evaluate", "report", "explain", "export",
                     "import-tf", "parity", "bench"}
    assert ["pretrain", "configs/demo.yaml"] in list(commands("    torchrun --nproc_per_node 2 -m kaleido_fast pretrain "
                                                              "CONFIG.yaml key=value …\n"))


@pytest.mark.parametrize("page", PAGES)
def test_settings_named_in_the_text_exist(page: str) -> None:
    known = {setting.key for setting in settings_of(Config)}
    sections = "|".join(section.name for section in fields(Config))
    named = {match for code in re.findall(r"`([^`]+)`", PAGES[page])
             for match in re.findall(rf"(?<![\w./])((?:{sections})\.[a-z_]+[a-z0-9_]*)\b(?!\()", code)}
    assert not {name for name in named - known if not name.endswith((".py", ".yaml", ".json"))}


def files_named(text: str) -> set[str]:
    """The files and folders of this repository that a page names in code: `kernels/plan.py`, `tests/golden/`."""
    return {name for code in re.findall(r"`([^`\n]+)`", text) for name in re.findall(r"(?<![\w./-])[\w.*-]+/[\w./*-]*", code)
            if name.startswith(FOLDERS)}


@pytest.mark.parametrize("page", PAGES)
def test_files_named_in_the_text_exist(page: str) -> None:
    assert not {name for name in files_named(PAGES[page]) if not any(REPO.glob(name.rstrip("/")))}


def test_named_files_are_found() -> None:
    """The test above must not pass by seeing none."""
    assert files_named("`kernels/plan.py`, `tests/golden/`, `SHARDS/features`, `x kaleido_fast/*.py`") == {
        "kernels/plan.py", "tests/golden/", "kaleido_fast/*.py"}
    assert len(files_named(PAGES["README.md"])) > 15 and files_named(PAGES["CONTRIBUTING.md"])


def anchors(text: str) -> set[str]:
    """GitHub's names of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        if target.startswith("http"):
            continue
        file, _, anchor = target.partition("#")
        path = (REPO / page).parent / file if file else REPO / page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path.read_text("utf-8")), target


def test_every_section_that_the_code_names_is_there() -> None:
    """`SPEC n` and `SPEC n.m` in docstrings mean docs/definitions.md."""
    text = PAGES["docs/definitions.md"]
    sections = dict(re.findall(r"^## (\d+)\. .*?\n(.*?)(?=^## )", text, re.M | re.S))
    files = [file for folder in ("kernels", "kaleido_fast", "tests", "benchmarks") for file in (REPO / folder).rglob("*.py")]
    named = {match for file in files if file != Path(__file__).resolve()
             for match in re.findall(r"SPEC (\d+)(?:\.(\d))?", file.read_text("utf-8"))}
    assert len(named) > 10
    for section, item in named:
        assert section in sections and (not item or f"\n{item}. " in sections[section]), f"SPEC {section}.{item}"
