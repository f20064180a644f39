"""A part of a session seen from outside: its processes, their deadlines, their figures and what they leave behind.

An outcome is {"status": "running", "ok", "failed" or "skipped", "seconds", "result": figures, "failed": {what: why},
"output": the end of what a failed part printed}.
"""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kaleido_fast.bench.session.report import merged

TAIL = 4000  # characters of a failed part's output that are kept
LOOK_S = 0.1  # between two looks at a process
LEAST_S = 5.0  # less than that is no time to begin anything
Outcome = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Part:
    """What runs as one process, or, where one of its cases ends it, as several.

    Args:
        command: from the file for its lines (report.py) and the cases that are left to an argument list.
        cases: what it measures, one after another; it tells their begin and end.
        why_not: why it cannot run here; empty where it can.
        read: figures from its output, of a program that writes no lines.
        skips: text in its output that says the machine does not allow it.
    """

    name: str
    limit_s: float
    command: Callable[[Path, Sequence[str]], Sequence[str]]
    cases: tuple[str, ...] = ()
    case_limit_s: float = float("inf")
    why_not: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    read: Callable[[str], dict[str, Any]] | None = None
    skips: tuple[str, ...] = ()


def run_part(part: Part, root: Path, seconds: float, put: Callable[[Outcome], None]) -> Outcome:
    """Run it in `root`, for at most `seconds` and its own limit; `put` takes the outcome whenever it changes."""
    start = time.perf_counter()
    outcome: Outcome = {"status": "running", "seconds": 0.0, "result": {}, "failed": {}}
    if part.why_not:
        outcome |= {"status": "skipped", "why": part.why_not}
        put(outcome)
        return outcome
    end = start + min(seconds, part.limit_s)
    late = f"over {part.limit_s:g} s" if part.limit_s <= seconds else "the session's time was over"
    left = list(part.cases)
    with tempfile.TemporaryDirectory(prefix="session") as folder:
        while True:
            process = _Process(part, left, root, Path(folder))
            process.follow(end, late, outcome, lambda: put(outcome | {"seconds": time.perf_counter() - start}))
            begun = [*process.done, *process.open]
            left = [case for case in left if case not in begun]
            if process.whole or not begun or not left or end - time.perf_counter() < LEAST_S:
                break
    outcome["failed"] |= {case: "not begun" for case in left if case not in outcome["failed"]}
    if outcome["status"] == "running":
        outcome["status"] = "failed" if outcome["failed"] else "ok"
    outcome["seconds"] = time.perf_counter() - start
    put(outcome)
    return outcome


class _Process:
    """One process of a part, with all that it starts: a session of its own, which ends with it."""

    def __init__(self, part: Part, cases: Sequence[str], root: Path, folder: Path) -> None:
        self.part, self.done, self.open = part, list[str](), list[str]()
        self.whole = False  # it came to its end
        self._lines, self._output = folder / "lines", folder / "output"
        self._lines.write_bytes(b"")
        self._read = 0
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                part.command(self._lines, cases), cwd=root, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                env={**os.environ, **part.environment}, start_new_session=True)

    def follow(self, end: float, late: str, outcome: Outcome, changed: Callable[[], None]) -> None:
        """Until it has ended, or `end` (which `late` explains) or its case's deadline has come; then nothing of it is left."""
        case_end, why = float("inf"), ""
        with self._ends_with_its_group():
            while not why and self._process.poll() is None:
                if time.perf_counter() >= min(end, case_end):
                    why = f"over {self.part.case_limit_s:g} s" if case_end < end else late
                    break
                time.sleep(LOOK_S)
                if self._take(outcome):
                    case_end = time.perf_counter() + self.part.case_limit_s if self.open else float("inf")
                    changed()
        self._take(outcome)
        self._close(outcome, why)

    @contextlib.contextmanager
    def _ends_with_its_group(self) -> Iterator[None]:
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _take(self, outcome: Outcome) -> bool:
        """Its new whole lines; whether there were any."""
        with self._lines.open("rb") as stream:
            stream.seek(self._read)
            text = stream.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            self._heard(json.loads(line), outcome)
        return bool(whole)

    def _heard(self, line: dict[str, Any], outcome: Outcome) -> None:
        if "begin" in line:
            self.open = [line["begin"]]
        elif "end" in line:
            self.done, self.open = [*self.done, line["end"]], []
        elif "failed" in line:
            self.done, self.open = [*self.done, line["failed"]], []
            outcome["failed"][line["failed"]] = line["why"]
        elif "skipped" in line:
            outcome |= {"status": "skipped", "why": line["skipped"]}
        else:
            outcome["result"] = merged(outcome["result"], line["figures"])

    def _close(self, outcome: Outcome, why: str) -> None:
        """How it ended."""
        text, code = self._output.read_text("utf-8", errors="replace"), self._process.returncode
        self.whole = not why and code == 0
        if self.part.read is not None:
            outcome["result"] = merged(outcome["result"], self.part.read(text))
        refused = next((words for words in self.part.skips if words in text), "")
        if self.whole:
            return
        if refused and not self.done:
            outcome |= {"status": "skipped", "why": refused}
            return
        why = why or (f"exit code {code}" if code >= 0 else f"ended by signal {-code}")
        for case in self.open or ([] if self.done else [self.part.name]):
            outcome["failed"][case] = why
        if not self.open and self.done and not outcome["failed"]:
            outcome["failed"][self.part.name] = why
        outcome["output"] = text[-TAIL:]
