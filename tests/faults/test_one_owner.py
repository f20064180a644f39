"""Real processes that want the same run folder: the second says in one line who works there and leaves everything alone."""

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.faults import runs
from tests.places import REPO

ENDLESS = ("train.steps=100000", "train.log_every=1", "train.checkpoint_every=3", "train.validate_every=100000")


def _begin(workers: int, shards: Path, out: Path, *more: str) -> subprocess.Popen:
    """A run that holds its folder and has a checkpoint."""
    before = _holder(out)
    process = subprocess.Popen(runs.command(workers, shards, out, *ENDLESS, *more), cwd=REPO, stderr=subprocess.PIPE, text=True,
                               env=os.environ | runs.QUIET)
    deadline = time.monotonic() + runs.PATIENCE_S
    while (_holder(out) == before or runs.last_step(out) < 4) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.poll() is None, process.communicate()[1][-3000:]
    return process


def _holder(out: Path) -> int | None:
    """The process that the lock names."""
    try:
        return json.loads((out / "lock.json").read_text())["pid"]
    except (OSError, ValueError):  # not there, or being written
        return None


def _second(workers: int, shards: Path, out: Path, *more: str) -> tuple[int, str]:
    done = subprocess.run(runs.command(workers, shards, out, *ENDLESS, *more), cwd=REPO, capture_output=True, text=True,
                          timeout=runs.PATIENCE_S, env=os.environ | runs.QUIET)
    return done.returncode, done.stderr


def _refused(errors: str, holder: int, out: Path) -> bool:
    line = f"{out}: process {holder} on {socket.gethostname()} works there (pretrain, since "
    return errors.count(line) == 1 and "Error: /" not in errors  # torchrun's own traceback is not ours


@pytest.mark.slow
def test_the_second_of_two_runs_is_refused_and_a_killed_one_is_taken_over(tiny_shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = _begin(1, tiny_shards, out)
    for more in ((), ("--resume", "auto"), ("train.seed=7",)):
        code, errors = _second(1, tiny_shards, out, *more)
        assert code == 2 and _refused(errors, first.pid, out), (more, errors)
        assert len(errors.strip().splitlines()) == 1
    assert first.poll() is None and "seed: 0" in (out / "config.yaml").read_text()
    steps = [line["step"] for line in runs.lines(out)]
    assert steps == list(range(1, len(steps) + 1)), "one process alone writes"
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert _holder(out) == first.pid
    third = _begin(1, tiny_shards, out, "--resume", "auto")
    third.send_signal(signal.SIGTERM)
    errors = third.communicate(timeout=runs.PATIENCE_S)[1]
    assert third.returncode == 143 and f"{out}: taken over from process {first.pid} (since " in errors
    assert not (out / "lock.json").exists()


@pytest.mark.slow
def test_workers_of_a_run_share_its_lock(tiny_shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = _begin(2, tiny_shards, out)
    holder = _holder(out)
    assert holder in runs.process_ids(first.pid)
    for workers, code in ((1, 2), (2, 1)):  # torchrun gives 1 whatever its workers gave
        ended, errors = _second(workers, tiny_shards, out, "--resume", "auto")
        assert ended == code and _refused(errors, holder, out), errors
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=runs.PATIENCE_S)
    assert not (out / "lock.json").exists()
