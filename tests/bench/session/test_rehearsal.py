"""A whole session on a CPU, at small sizes (rehearsal.py): every part runs to its end and leaves its figures."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kaleido_fast.bench.page.gpu import kernels_text, training_text
from kaleido_fast.bench.session.parts import DEFAULT, KERNELS
from tests.places import REPO

SANITIZER = '#!/bin/sh\nshift 6\nexec "$@"\n'  # behind --tool memcheck --report-api-errors no --error-exitcode 9


def rehearse(folder: Path, *parts: str) -> dict[str, Any]:
    """The session's parts by name."""
    tool, out = folder / "compute-sanitizer", folder / "gpu.json"
    tool.write_text(SANITIZER)
    tool.chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).with_name("rehearsal.py")), "--out", str(out), "--minutes", "60"]
    done = subprocess.run([*command, "--parts", *parts], cwd=REPO, env=environment, capture_output=True, text=True)
    found = json.loads(out.read_text())["parts"]
    assert done.returncode == 0, [part for part in found.values() if part["status"] == "failed"]
    assert {name: part["status"] for name, part in found.items()} == dict.fromkeys(("environment", *parts), "ok")
    return found


def test_kernels_and_steps_run_as_a_session_starts_them(tmp_path: Path) -> None:
    found = rehearse(tmp_path, "kernels", "step-base")
    kernels, base = found["kernels"]["result"], found["step-base"]["result"]
    assert tuple(kernels["kernels"]) == KERNELS and kernels["copy_gbps"] > 0
    for name, case in kernels["kernels"].items():
        assert {"kaleido_fast", "eager"} <= set(case["ways"])
        assert case["left_out"] == {"compiled": "RuntimeError: no compiler in a rehearsal"} or name == "plan"
    assert set(base["ways"]) == {"kaleido_fast", "reference"} and base["profile"] and base["samples_per_s"] > 0
    assert base["left_out"]["ours-varlen"].startswith("ValueError: attention=varlen needs a CUDA device")
    assert "| embed |" in kernels_text("gpu", found) and "| base | reference path |" in training_text("gpu", found)


@pytest.mark.slow
def test_every_part_of_a_session_runs(tmp_path: Path) -> None:
    found = rehearse(tmp_path, *DEFAULT[1:])
    assert found["loop"]["result"]["stored_samples"] == 64 and found["loop"]["result"]["samples_per_s"] > 0
    assert found["tests"]["result"]["skipped"] > 50 and not found["tests"]["result"]["red"]
    assert set(found["sanitizer"]["result"]["checked"]) == set(KERNELS)
    assert set(found["racecheck"]["result"]["checked"]) == {"cut", "embed"}
    assert {"visualbert", "kaleido_fast"} <= set(found["baselines-base"]["result"]["ways"])
    assert set(found["step-base_computed"]["result"]["ways"]) == {"kaleido_fast", "reference"}
