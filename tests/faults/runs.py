"""Starting, killing and finishing real runs for the fault tests."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.places import REPO
from tests.small import RUN

PATIENCE_S = 300
QUIET = {"OMP_NUM_THREADS": "1", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "60"}


def command(workers: int, shards: Path, out: Path, *more: str, program: tuple[str, ...] = ("-m", "kaleido_fast")) -> list[str]:
    """`pretrain` on so many workers of this machine."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(workers)] if workers > 1 else []
    return [sys.executable, *torchrun, *program, "pretrain", "configs/demo.yaml", *RUN, "train.warmup_steps=5",
            f"data.shards={shards}", f"run.out={out}", *more]


def finish(workers: int, shards: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """A run to its end, which must be a good one."""
    done = subprocess.run(command(workers, shards, out, *more), cwd=REPO, capture_output=True, text=True,
                          timeout=PATIENCE_S, env=os.environ | QUIET)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def kill(workers: int, shards: Path, out: Path, *more: str, how: signal.Signals, whom: str, at: int) -> str:
    """Start a run and kill one worker, all, or the launcher once step `at` is logged; its output."""
    process = subprocess.Popen(command(workers, shards, out, *more), cwd=REPO, stderr=subprocess.PIPE, text=True,
                               env=os.environ | QUIET)
    deadline = time.monotonic() + PATIENCE_S
    while last_step(out) < at and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()[1][-3000:]
    own = process_ids(process.pid) if workers > 1 else [process.pid]
    assert len(own) == workers, own
    for target in {"one": own[-1:], "all": own, "launcher": [process.pid]}[whom]:
        os.kill(target, how)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode != 0, errors
    if workers == 1:
        assert process.returncode == (143 if how == signal.SIGTERM else -how), errors
    return errors


def process_ids(parent: int) -> list[int]:
    """The children of a process, by age."""
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def last_step(out: Path) -> int:
    """The last step of a run that was logged, 0 before the first."""
    try:
        return max((line["step"] for line in lines(out)), default=0)
    except (OSError, ValueError):  # not there yet, or a line is being written
        return 0


def lines(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
