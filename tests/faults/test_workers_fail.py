"""Where something is wrong on all workers, or on one, one line says so, the exit code says so and nobody waits."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults import runs

pytestmark = pytest.mark.slow
PROGRAM = str(Path(__file__).with_name("fault_program.py"))
SETTINGS = ["train.steps=4000", "train.log_every=1", "train.checkpoint_every=100000", "train.validate_every=100000"]


def _ours(errors: str) -> list[str]:
    """What the workers said: not the progress bar, not torchrun's account of the processes."""
    return [line for line in errors.replace("\r", "\n").splitlines() if line.startswith("kaleido-fast")]


@pytest.mark.parametrize(("fault", "rank", "change", "message"), [
    ("none", "none", ["data.shards=/nowhere"], "kaleido-fast pretrain: /nowhere: no manifest.json there"),
    ("none", "none", ["train.learning_rat=1"], "kaleido-fast pretrain: train.learning_rat: unknown key"),
    ("lacks_shards", "1", [], "kaleido-fast pretrain: worker 1: /nowhere: no manifest.json there"),
    ("cannot_read", "1", [], "kaleido-fast pretrain: worker 1: [Errno 5] Input/output error: 'train-000000.tar'"),
    ("cannot_read", "0", [], "kaleido-fast pretrain: [Errno 5] Input/output error: 'train-000000.tar'"),
    ("is_not_finite", "1", [], "kaleido-fast pretrain: train.max_skipped_steps=5: in steps 3 to 7 nothing moved"),
    ("is_not_finite", "1", ["train.zero_stage=2"],
     "kaleido-fast pretrain: train.max_skipped_steps=5: in steps 3 to 7 nothing moved"),
])
def test_one_line_says_what_is_wrong(fault: str, rank: str, change: list[str], message: str, tiny_shards, tmp_path) -> None:
    command = runs.command(2, tiny_shards, tmp_path / "run", *SETTINGS, *change, program=(PROGRAM, fault, rank))
    done = subprocess.run(command, cwd=runs.REPO, capture_output=True, text=True, timeout=120, env=os.environ | runs.QUIET)
    assert done.returncode == 1, done.stderr
    said = _ours(done.stderr)
    assert len(said) == 1 and said[0].startswith(message), done.stderr
    assert "[rank" not in done.stderr  # a worker's traceback
    if fault == "is_not_finite":
        samples = json.loads((tmp_path / "run" / "summary.json").read_text())["ended"]["samples"]
        assert {worker: len(numbers) for worker, numbers in samples.items()} == {"worker 0": 16, "worker 1": 16}
    elif fault == "cannot_read":
        ended = json.loads((tmp_path / "run" / "summary.json").read_text())["ended"]
        assert ended == {"how": "failed", "why": message.removeprefix("kaleido-fast pretrain: ")}
    else:
        assert not (tmp_path / "run").exists()


def test_a_killed_worker_is_missed_at_once(tiny_shards: Path, tmp_path: Path) -> None:
    started = time.monotonic()
    errors = runs.kill(2, tiny_shards, tmp_path / "run", *SETTINGS, how=signal.SIGKILL, whom="one", at=3)
    assert _ours(errors) == ["kaleido-fast pretrain: another worker was lost (killed, or its machine failed); go on with "
                             "--resume auto"], errors
    assert time.monotonic() - started < 120  # far below run.timeout_s


def test_a_worker_that_hangs_is_given_up(tiny_shards: Path, tmp_path: Path) -> None:
    command = runs.command(2, tiny_shards, tmp_path / "run", *SETTINGS, "run.timeout_s=10")
    process = subprocess.Popen(command, cwd=runs.REPO, stderr=subprocess.PIPE, text=True,
                               env=os.environ | runs.QUIET | {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "2"})
    while runs.last_step(tmp_path / "run") < 3 and process.poll() is None:
        time.sleep(0.02)
    os.kill(runs.process_ids(process.pid)[1], signal.SIGSTOP)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert _ours(errors) == ["kaleido-fast pretrain: another worker gave no answer within run.timeout_s=10 s; see its "
                             "machine, then go on with --resume auto"], errors


@pytest.mark.parametrize("launcher", ["deepspeed", "srun"])
def test_other_launchers_start_the_same_run_quietly(launcher: str, tiny_shards: Path, tmp_path: Path) -> None:
    """torchrun starts all the others here. srun: two processes with the variables that it sets; SLURM itself is not here."""
    arguments = runs.command(1, tiny_shards, tmp_path / "run", "train.steps=3", "train.log_every=1", "train.zero_stage=1")[1:]
    environments = [dict(runs.QUIET)]
    command = [sys.executable, *arguments]
    if launcher == "deepspeed":
        command = [sys.executable, "-m", "deepspeed.launcher.runner", "--num_gpus", "2", "--no_local_rank", "--master_port",
                   "29517", "--module", *arguments[1:]]
    else:
        environments = [runs.QUIET | {
            "SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": str(rank),
            "SLURM_LOCALID": str(rank), "SLURM_STEP_NODELIST": "localhost", "SLURM_STEP_TASKS_PER_NODE": "2",
        } for rank in range(2)]
    started = [subprocess.Popen(command, cwd=runs.REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                env=os.environ | more) for more in environments]
    output = "".join(part for process in started for part in process.communicate(timeout=runs.PATIENCE_S))
    assert [process.returncode for process in started] == [0] * len(started), output
    assert [line["samples"] for line in runs.lines(tmp_path / "run") if "losses" in line] == [32, 64, 96]
    assert output.count("3/3 [") == 1, output  # one line of progress, the last
    assert output.count("model.attention=auto: sdpa") == 1, output  # what was picked, by the first worker
    ours = ("pretrain: ", "model.attention=auto: ")
    others = [line for line in output.replace("\r", "\n").splitlines()
              if line.strip() and not any(part in line for part in ours)]
    launchers = ("runner.py", "launch.py", "real_accelerator.py")
    assert not [line for line in others if not any(name in line for name in launchers)], output
