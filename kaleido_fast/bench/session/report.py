"""What a part's process tells the session, a JSON object a line, so that what was measured outlives the process.

    {"begin": case}    {"end": case}    {"failed": case, "why": text}    {"figures": {...}}    {"skipped": text}
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LONGEST_REASON = 300  # characters of an exception's first line


class Report:
    """Writes them to a file; without one nothing is told."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file

    def figures(self, figures: dict[str, Any]) -> None:
        """Figures that are there now; laid over those before, dictionaries into each other."""
        self._write({"figures": figures})

    def skipped(self, why: str) -> None:
        """Nothing of this part can be measured here."""
        self._write({"skipped": why})

    @contextmanager
    def case(self, name: str) -> Iterator[None]:
        """One of several things that are measured: an exception inside is a line, and the next one has its turn.

        Raises:
            Exception: the one from inside, where the device answers no more: the session begins a new process for the rest.
        """
        self._write({"begin": name})
        try:
            yield
        except Exception as error:
            self._write({"failed": name, "why": reason(error)})
            if device_is_lost():
                raise
        else:
            self._write({"end": name})

    def _write(self, line: dict[str, Any]) -> None:
        if self._file is not None:
            with self._file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line) + "\n")


def reason(error: Exception) -> str:
    """An exception in a line."""
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}"[:LONGEST_REASON]


def device_is_lost() -> bool:
    """Whether the GPU refuses all further work of this process, as after an access out of bounds."""
    import torch

    if not torch.cuda.is_available():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def merged(before: dict[str, Any], figures: dict[str, Any]) -> dict[str, Any]:
    """`figures` laid over `before`, dictionaries into each other."""
    both = dict(before)
    for name, value in figures.items():
        inner = both.get(name)
        both[name] = merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return both
