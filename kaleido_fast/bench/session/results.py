"""The session's JSON file: whole at every moment, with what is there so far."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

CODE = ("kaleido_fast", "kernels", "benchmarks", "tests", "setup.py", "pyproject.toml")  # what a figure depends on


class Results:
    """{"command", "commit", "minutes", "parts": {name: outcome}} (outcomes: runner.py), written anew at every change."""

    def __init__(self, file: Path, **about: Any) -> None:
        self._file, self._values = file, about | {"parts": dict[str, Any]()}

    @property
    def parts(self) -> dict[str, Any]:
        """Outcomes by part."""
        return self._values["parts"]

    def put(self, part: str, outcome: dict[str, Any]) -> None:
        """Write a part's outcome, or what there is of it."""
        self.parts[part] = outcome
        self._file.parent.mkdir(parents=True, exist_ok=True)
        beside = self._file.with_name(f".{self._file.name}")
        beside.write_text(json.dumps(self._values, indent=1) + "\n", encoding="utf-8")
        os.replace(beside, self._file)


def commit_of(root: Path) -> str | None:
    """The commit of the code in `root`, with -dirty behind it where files of it are changed or new; None without git."""
    short = _git(root, "rev-parse", "--short", "HEAD")
    if not short:
        return None
    return f"{short}-dirty" if _git(root, "status", "--porcelain", "--", *CODE) else short


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
