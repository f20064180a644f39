"""Progress: a bar in a terminal, plain lines in a pipe."""

import io
import os
import pty
import re
import subprocess
import sys
import termios
from pathlib import Path
from types import SimpleNamespace

import pytest

from kaleido_fast import progress_bar
from kaleido_fast.progress_bar import ProgressBar

# 2,000 products in about half a second: a bar repaints itself many times meanwhile.
PROGRAM = """
import time
from kaleido_fast import progress_bar
progress_bar.EVERY_S = {every}
with progress_bar.ProgressBar(2000, "prepare", "product") as bar:
    for number in range(2000):
        time.sleep(0.00025)
        bar.update()
        if number == 100:
            bar.note(loss="5.31")
"""
LINE = re.compile(r"prepare: +\d+% \d+/2000 \[\d\d:\d\d<\d\d:\d\d, +[\d.]+product/s(, loss=5\.31)?\]")


def in_a_pipe(every: float) -> str:
    command = [sys.executable, "-c", PROGRAM.format(every=every)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == ""
    return done.stderr


def test_a_pipe_gets_plain_lines() -> None:
    """As often as said, and the last state at the end; no carriage return."""
    errors = in_a_pipe(every=0.1)
    lines = errors.splitlines()
    assert "\r" not in errors and 3 <= len(lines) <= 30
    assert all(LINE.fullmatch(line) for line in lines), lines
    assert " 2000/2000 [" in lines[-1] and lines[-1].endswith("loss=5.31]")


def test_a_short_work_says_its_end_alone() -> None:
    errors = in_a_pipe(every=10)
    assert errors.count("\n") == 1 and errors.startswith("prepare: 100% 2000/2000 [")


def test_a_terminal_gets_a_bar() -> None:
    """Standard error is a pseudo-terminal: one line that repaints itself."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    with subprocess.Popen([sys.executable, "-c", PROGRAM.format(every=0.1)], stderr=theirs) as process:
        os.close(theirs)
        written = b""
        while True:
            try:
                piece = os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            written += piece
    os.close(ours)
    assert process.returncode == 0
    assert written.count(b"\r") > 3 and written.count(b"\n") == 1
    assert b"2000/2000 [" in written and b"|" in written and b"loss=5.31" in written


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_a_total_that_comes_later_and_a_start_that_is_not_zero(monkeypatch: pytest.MonkeyPatch, stream: type) -> None:
    monkeypatch.setattr(sys, "stderr", stream())
    with ProgressBar(None, "pretrain", "step", done=40) as bar:
        bar.update(2)
        bar.expect(50)
        bar.update(3)
        assert bar.n == 45 and bar.total == 50
    assert "45/50 [" in sys.stderr.getvalue()


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_who_is_not_shown_says_nothing(monkeypatch: pytest.MonkeyPatch, stream: type) -> None:
    monkeypatch.setattr(progress_bar, "EVERY_S", 0.0)
    monkeypatch.setattr(sys, "stderr", stream())
    with ProgressBar(3, "encode", "photo", shown=False) as bar:
        bar.update(2)
        bar.expect(4)
        bar.note(loss="1")
        assert (bar.n, bar.total) == (2, 4)
    assert sys.stderr.getvalue() == ""


def test_bytes_are_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with ProgressBar(12_000_000, "prepare", "B", scaled=True) as bar:
        bar.update(6_000_000)
    assert "6.00M/12.0M [" in sys.stderr.getvalue()


def test_a_work_that_fails_says_how_far_it_came(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with pytest.raises(ValueError), ProgressBar(9, "align", "sample") as bar:
        bar.update(4)
        raise ValueError("no more")
    assert "4/9 [" in sys.stderr.getvalue()


def test_the_rate_leaves_out_what_was_done_before(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress_bar, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with ProgressBar(80, "pretrain", "step", done=40) as bar:
        now[0] += 10
        bar.update(20)
        assert sys.stderr.getvalue() == "pretrain:  75% 60/80 [00:10<00:10,  2.00step/s]\n"


def test_all_progress_goes_this_way() -> None:
    files = [file.name for file in Path(progress_bar.__file__).parent.rglob("*.py") if "import tqdm" in file.read_text("utf-8")]
    assert files == ["progress_bar.py"]
