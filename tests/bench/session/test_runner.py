"""Parts in processes of their own: what fails, hangs or is cut costs no other part or case its figures."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from kaleido_fast.bench.session.report import Report, merged
from kaleido_fast.bench.session.runner import Outcome, Part, run_part
from tests.places import REPO

PROGRAM = """
import os, pathlib, subprocess, sys, time
from kaleido_fast.bench.session.report import Report
report = Report(pathlib.Path(sys.argv[1]))
cases = sys.argv[2:]
"""


def program(text: str) -> Any:
    """A part's command: `text` behind PROGRAM."""
    def command(lines: Path, cases: Sequence[str]) -> list[str]:
        return [sys.executable, "-c", PROGRAM + text, str(lines), *cases]
    return command


def run(part: Part, seconds: float = 60) -> tuple[Outcome, list[Outcome]]:
    """Its outcome, and all that were handed over on the way."""
    seen: list[Outcome] = []
    outcome = run_part(part, REPO, seconds, seen.append)
    assert seen[-1] == outcome
    return outcome, seen


def cases_part(text: str, cases: tuple[str, ...] = ("a", "b", "c"), limit_s: float = 60, case_limit_s: float = 60) -> Part:
    return Part("some", limit_s, program(text), cases, case_limit_s)


def test_figures_come_while_a_part_runs() -> None:
    outcome, seen = run(Part("some", 60, program(
        "report.figures({'copy': 3, 'ways': {'ours': 1}}); time.sleep(1); report.figures({'ways': {'theirs': 2}})")))
    assert outcome["status"] == "ok" and outcome["result"] == {"copy": 3, "ways": {"ours": 1, "theirs": 2}}
    assert [one["result"] for one in seen][0] == {"copy": 3, "ways": {"ours": 1}} and seen[0]["status"] == "running"


def test_a_part_that_raises_keeps_what_it_had_and_says_how_it_ended() -> None:
    outcome, _ = run(Part("some", 60, program("report.figures({'copy': 3}); raise ValueError('no such thing')")))
    assert outcome["status"] == "failed" and outcome["result"] == {"copy": 3}
    assert outcome["failed"] == {"some": "exit code 1"} and "ValueError: no such thing" in outcome["output"]


def test_a_case_that_raises_is_a_line_and_the_next_has_its_turn() -> None:
    outcome, _ = run(cases_part("""
for name in cases:
    with report.case(name):
        if name == 'b':
            raise RuntimeError('first line\\nsecond line')
        report.figures({name: 1})
"""))
    assert outcome["result"] == {"a": 1, "c": 1} and outcome["failed"] == {"b": "RuntimeError: first line"}
    assert outcome["status"] == "failed"


@pytest.mark.parametrize(("ends", "why"), [("os.abort()", "ended by signal 6"), ("time.sleep(60)", "over 2 s")])
def test_a_case_that_takes_its_process_along_or_hangs_costs_no_other(ends: str, why: str) -> None:
    outcome, _ = run(cases_part(f"""
for name in cases:
    with report.case(name):
        report.figures({{name: os.getpid()}})
        if name == 'b':
            {ends}
""", case_limit_s=2))
    processes = outcome["result"]
    assert set(processes) == {"a", "b", "c"} and processes["a"] == processes["b"] != processes["c"]
    assert outcome["failed"] == {"b": why} and outcome["status"] == "failed"


def test_a_part_over_its_time_is_cut_and_says_what_had_not_begun() -> None:
    start = time.perf_counter()
    outcome, _ = run(cases_part("""
with report.case('a'):
    report.figures({'a': 1})
with report.case('b'):
    time.sleep(60)
""", limit_s=2))
    assert outcome["failed"] == {"b": "over 2 s", "c": "not begun"} and outcome["result"] == {"a": 1}
    assert 2 <= outcome["seconds"] <= time.perf_counter() - start < 20


def test_the_sessions_time_cuts_a_part_too() -> None:
    outcome, _ = run(Part("some", 60, program("report.figures({'a': 1}); time.sleep(60)")), seconds=2)
    assert outcome["failed"] == {"some": "the session's time was over"} and outcome["result"] == {"a": 1}


@pytest.mark.parametrize("after", ["time.sleep(60)", ""])
def test_what_a_part_started_ends_with_it(after: str, tmp_path: Path) -> None:
    """Cut or done: a compiler's workers would hold the processor, a child of a sanitizer the device."""
    file = tmp_path / "pid"
    outcome, _ = run(Part("some", 3, program(f"""
child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])
pathlib.Path({str(file)!r}).write_text(str(child.pid))
{after}
""")))
    assert outcome["status"] == ("failed" if after else "ok")
    pid = int(file.read_text())
    for _ in range(50):  # its parent is gone: whoever takes it in its place needs a moment to notice
        if not alive(pid):
            break
        time.sleep(0.1)
    assert not alive(pid)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_part_that_cannot_run_is_skipped_and_none_is_started() -> None:
    outcome, _ = run(Part("some", 60, program("os.abort()"), why_not="deepspeed not installed"))
    assert outcome["status"] == "skipped" and outcome["why"] == "deepspeed not installed"


def test_a_machine_that_does_not_allow_it_is_told_from_a_failure() -> None:
    for text, status in (("Error: Device not supported", "skipped"), ("Invalid read of size 4", "failed")):
        outcome, _ = run(Part("some", 60, program(f"print({text!r}); sys.exit(9)"), skips=("Device not supported",)))
        assert outcome["status"] == status
    assert outcome["failed"] == {"some": "exit code 9"}
    assert run(Part("some", 60, program("report.skipped('no such card')")))[0]["why"] == "no such card"


def test_a_part_gets_its_environment_and_its_output_is_read_though_it_is_cut() -> None:
    part = Part("some", 2, program("print(os.environ['SOME'], flush=True); time.sleep(60)"), environment={"SOME": "7"},
                read=lambda text: {"read": text.strip()})
    outcome, _ = run(part)
    assert outcome["result"] == {"read": "7"} and outcome["failed"] == {"some": "over 2 s"}


def test_ended_from_outside_nothing_is_left(tmp_path: Path) -> None:
    """A session that is told to stop takes the running part along."""
    file = tmp_path / "pid"
    child = f"import os, pathlib, time; pathlib.Path({str(file)!r}).write_text(str(os.getpid())); time.sleep(60)"
    session = f"""
import pathlib, signal, sys
from kaleido_fast.bench.session.runner import Part, run_part
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
run_part(Part('some', 60, lambda lines, cases: [sys.executable, '-c', {child!r}]), pathlib.Path('.'), 60, lambda _: None)
"""
    process = subprocess.Popen([sys.executable, "-c", session], cwd=REPO)
    while not (file.exists() and file.read_text()):
        assert process.poll() is None
        time.sleep(0.1)
    process.terminate()
    assert process.wait(30) == 3
    assert not alive(int(file.read_text()))


def test_figures_are_laid_into_each_other() -> None:
    assert merged({"a": {"b": 1, "c": 2}, "d": 1}, {"a": {"c": 3}, "d": {"e": 1}}) == {"a": {"b": 1, "c": 3}, "d": {"e": 1}}
    Report().figures({"nobody": "listens"})
    assert os.getpgrp()  # still there: none of the above ended this process's group
