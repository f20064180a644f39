"""A run that is stopped and resumed repeats an undisturbed one, loss for loss, bit for bit.

Real processes are killed: by SIGTERM (which saves) and by SIGKILL (which leaves the last checkpoint).
"""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
STEPS = 24


def _command(shards: Path, out: Path, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "kaleido_fast", "pretrain", "configs/demo.yaml", f"data.shards={shards}", f"run.out={out}",
        f"train.steps={STEPS}", "train.minutes=0", "train.micro_batch=16", "train.warmup_steps=5", "model.layers=1",
        "model.dropout=0.1", "train.log_every=1", "train.validate_every=9", "train.validation_samples=16",
        "train.checkpoint_every=5", *more,
    ]


def _losses(out: Path) -> list[dict]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: line.get(key) for key in ("step", "losses", "accuracy", "grad_norm", "validation")} for line in lines]


def _steps_logged(out: Path) -> int:
    file = out / "metrics.jsonl"
    return file.read_text().count('"losses"') if file.exists() else 0


@pytest.fixture(scope="module")
def undisturbed(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    subprocess.run(_command(tiny_shards, out), check=True, timeout=300, capture_output=True)
    return _losses(out)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_killed_at_a_random_step_and_resumed(how: signal.Signals, undisturbed, tiny_shards, tmp_path) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    out, at = tmp_path / "run", random.Random(seed).randrange(1, STEPS - 4)
    process = subprocess.Popen(_command(tiny_shards, out), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 240
    while _steps_logged(out) < at and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(how)
    _, errors = process.communicate(timeout=120)
    assert process.returncode in ((143, 0) if how == signal.SIGTERM else (-9, 0)), errors
    subprocess.run(_command(tiny_shards, out, "--resume", "auto"), check=True, timeout=300, capture_output=True)
    assert _losses(out) == undisturbed
