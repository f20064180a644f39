"""Two workers mine the negatives that one does, also where weights are sharded; and a run goes on with another number."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kaleido_fast.training.mining.mined_negatives import NEGATIVES
from tests.places import REPO
from tests.training.mining import mining_program as program

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def two(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of two workers."""
    folder = tmp_path_factory.mktemp("two")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", program.__name__,
               str(tiny_shards), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=REPO,
                          env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.fixture(scope="module")
def alone(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One worker at stage 0."""
    folder = tmp_path_factory.mktemp("alone")
    program.one_run(tiny_shards, folder, program.start_workers("cpu", 120), 0, "fp32")
    return folder


def _lists(out: Path, step: int) -> np.ndarray:
    return np.load(out / "checkpoints" / f"step-{step:08d}" / NEGATIVES)


def _lines(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def _assert_same(out: Path, expected: Path, alike: float, tolerance: float) -> None:
    for step in (program.SAVED, program.STEPS):
        assert (_lists(out, step) == _lists(expected, step)).mean() >= alike, (out.name, step)
    assert [line["step"] for line in _lines(out)] == [line["step"] for line in _lines(expected)]
    for line, other in zip(_lines(out), _lines(expected), strict=True):
        if "losses" in line:
            assert line["losses"] == pytest.approx(other["losses"], rel=tolerance)
            assert line.get("mined") == pytest.approx(other.get("mined"))
        elif "mining" in line:
            assert line["mining"]["empty_share"] == other["mining"]["empty_share"]


@pytest.mark.parametrize(("run", "alike", "tolerance"), [("0-fp32", 1, 1e-4), ("3-fp32", 1, 1e-4), ("3-bf16", 0.9, 0.05)])
def test_two_workers_equal_one(two: Path, alone: Path, run: str, alike: float, tolerance: float) -> None:
    assert (_lists(alone, program.SAVED) != _lists(alone, program.STEPS)).mean() > 0.2  # mined twice
    _assert_same(two / run, alone, alike, tolerance)


@pytest.mark.parametrize(("stage", "precision"), [(0, "fp32"), (3, "fp32")])
def test_one_worker_goes_on_from_two(two: Path, alone: Path, tiny_shards: Path, stage: int, precision: str) -> None:
    """From between the minings, by the lists of the checkpoint, and across the second."""
    out = two / f"{stage}-{precision}"
    (out / "checkpoints" / "latest").write_text(f"step-{program.SAVED:08d}")
    program.one_run(tiny_shards, out, program.start_workers("cpu", 120), stage, precision, resume=True)
    _assert_same(out, alone, 1, 1e-4)
