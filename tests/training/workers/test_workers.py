"""Every ZeRO stage and precision on one, two and three workers: the same losses for the same samples, also when a run goes
on with another number of workers. Two launches hold all cases."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.places import REPO
from tests.training.workers import worker_program as program

pytestmark = pytest.mark.slow
# Of the sum of the losses. bf16 is compared with bf16: another split of the batch rounds otherwise.
ROUNDING = {"fp32": 1e-6, "bf16": 1e-3}


def _launch(workers: int, *arguments: str | Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(workers),
               "-m", program.__name__, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=REPO,
                          env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-4000:]


def _lines(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def _assert_same(out: Path, expected: list[dict], tolerance: float) -> None:
    lines = _lines(out)
    assert [line["step"] for line in lines] == [line["step"] for line in expected]
    for line, other in zip(lines, expected, strict=True):
        assert (line.get("digest"), line.get("samples")) == (other.get("digest"), other.get("samples"))
        report, wanted = line.get("validation", line)["losses"], other.get("validation", other)["losses"]
        assert report["total"] == pytest.approx(wanted["total"], rel=tolerance), f"{out.name}, step {line['step']}"
        if "grad_norm" in line:
            assert line["grad_norm"] == pytest.approx(other["grad_norm"], rel=max(20 * tolerance, 1e-5))


@pytest.fixture(scope="module")
def alone(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict]]:
    """One worker, no accumulation, stage 0."""
    folder = tmp_path_factory.mktemp("alone")
    workers = program.start_workers("cpu", 120)
    for precision in ("fp32", "bf16"):
        program.one_run(tiny_shards, folder / precision, workers, 0, precision, 1, resume=False)
    return {precision: _lines(folder / precision) for precision in ("fp32", "bf16")}


@pytest.fixture(scope="module")
def two(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of two workers, and the engine's checks on them."""
    folder = tmp_path_factory.mktemp("two")
    _launch(2, tiny_shards, folder)
    return folder


def _cut_back(two: Path, out: Path) -> Path:
    """The runs of two workers as a kill after the step that was saved in between leaves them."""
    for stage, precision in program.RUNS:
        run = shutil.copytree(two / f"{stage}-{precision}", out / f"{stage}-{precision}")
        (run / "checkpoints" / "latest").write_text(f"step-{program.SAVED:08d}")
    return out


def test_two_workers_give_the_losses_of_one(alone: dict, two: Path) -> None:
    for stage, precision in program.RUNS:
        _assert_same(two / f"{stage}-{precision}", alone[precision], ROUNDING[precision])


def test_accumulation_gives_the_losses_of_none(alone: dict, two: Path) -> None:
    for stage in program.engine_cases.STAGES:
        _assert_same(two / f"{stage}-accumulated", alone["fp32"], ROUNDING["fp32"])


def test_bf16_is_near_fp32_and_not_the_same(alone: dict) -> None:
    half, full = (line["losses"]["total"] for line in (alone["bf16"][0], alone["fp32"][0]))
    assert half != full and half == pytest.approx(full, rel=1e-3)


def test_three_workers_go_on_from_two(alone: dict, two: Path, tiny_shards: Path, tmp_path: Path) -> None:
    out = _cut_back(two, tmp_path)
    _launch(3, tiny_shards, out, "resume")
    for stage, precision in program.RUNS:
        _assert_same(out / f"{stage}-{precision}", alone[precision], ROUNDING[precision])
        assert not list((out / f"{stage}-{precision}" / "checkpoints").glob(".*"))  # the converted state is gone


@pytest.mark.parametrize(("stage", "precision"), program.RUNS)
def test_one_worker_goes_on_from_two(stage: int, precision: str, alone: dict, two: Path, tiny_shards: Path, tmp_path) -> None:
    run = _cut_back(two, tmp_path) / f"{stage}-{precision}"
    program.one_run(tiny_shards, run, program.start_workers("cpu", 120), stage, precision, 3, resume=True)
    _assert_same(run, alone[precision], ROUNDING[precision])
