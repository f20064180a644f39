"""The session on a GPU machine: each part's failure is its own, and torch, triton, numpy and pytest suffice."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_session
from tests.places import REPO

SCRIPT = REPO / "benchmarks" / "gpu_session.py"
ABSENT = ("PIL", "deepspeed", "matplotlib", "nvidia.dali", "pydantic", "pytest_benchmark", "safetensors", "scipy",
          "tokenizers", "tqdm", "transformers", "triton_viz", "xformers", "yaml")
LEAN = f"""
from importlib.machinery import PathFinder
found = PathFinder.find_spec
def find_spec(cls, name, path=None, target=None):
    absent = any(name == one or name.startswith(one + ".") for one in {ABSENT!r})
    return None if absent else found(name, path, target)
PathFinder.find_spec = classmethod(find_spec)
"""
STEPS = """
import torch
from dataclasses import replace
import kaleido_fast.bench.environment, kaleido_fast.bench.kernels, kaleido_fast.bench.packing
from kaleido_fast.bench.step_shape import SHAPES
from kaleido_fast.bench.training_steps import Measuring, bench_steps, drawn_steps
from tests.places import REPO
for name in ("base", "base_computed"):
    shape = SHAPES[name].on(torch.device("cpu")).with_batch(16)
    shape = replace(shape, kaleido=replace(shape.kaleido, patch_size=17), data=replace(shape.data, image_size=60),
                    model=replace(shape.model, hidden=24, layers=1, heads=2, intermediate=32))
    batches, manifest, _ = drawn_steps(shape, steps=1)
    bench_steps(shape, manifest, batches, Measuring(1, ("reference",)))
"""


@pytest.mark.skipif(torch.cuda.is_available(), reason="shows what is said without a CUDA device")
def test_without_a_device_nothing_is_written(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    done = subprocess.run([sys.executable, str(SCRIPT), "--out", str(out)], capture_output=True, text=True)
    assert done.returncode == 1 and not out.exists()
    assert done.stderr.strip() == "gpu_session: no CUDA device found"


def test_a_part_over_its_time_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_session, "_command", lambda part: [sys.executable, "-c", "import time; time.sleep(60)"])
    found = gpu_session._in_a_process("kernels", limit_s=0.5)
    assert not found["ok"] and found["output"].startswith("over 0.5 s")


def test_a_result_is_the_last_line_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    program = "print('warning: slow'); print('{\"copy_gbps\": 3.0}')"
    monkeypatch.setattr(gpu_session, "_command", lambda part: [sys.executable, "-c", program])
    assert gpu_session._in_a_process("kernels", limit_s=30)["result"] == {"copy_gbps": 3.0}


@pytest.mark.slow
def test_torch_triton_numpy_and_pytest_suffice(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(LEAN)
    environment = {"PYTHONPATH": str(tmp_path), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [*gpu_session._command("tests"), "--collect-only"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    done = subprocess.run([sys.executable, "-c", STEPS], cwd=REPO, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-1000:]


def test_a_missing_package_is_said_and_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    found = gpu_session.importlib.util.find_spec
    absent = {"nvidia.dali", "deepspeed"}
    monkeypatch.setattr(gpu_session.importlib.util, "find_spec", lambda name: None if name in absent else found(name))
    assert gpu_session._loop("loader")(None) == {"not_measured": "nvidia.dali, deepspeed not installed"}
    found = gpu_session._in_a_process("loop-tests", limit_s=30)
    assert found["ok"] and found["result"] == "not run: nvidia.dali, deepspeed not installed"


def test_every_test_for_a_gpu_is_run() -> None:
    run = [REPO / place for places in gpu_session.TESTS.values() for place in places]
    for file in (REPO / "tests").rglob("test_*.py"):
        if "pytest.mark.gpu" + "\n" in file.read_text(encoding="utf-8"):
            assert any(place == file or place in file.parents for place in run), file


def test_every_part_can_be_run() -> None:
    for part in gpu_session.PARTS:
        assert part in gpu_session._WORK or part in (*gpu_session.TESTS, "sanitizer")
