"""The session on a GPU machine: each part's failure is its own, and torch, triton, numpy and pytest suffice."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu_session.py"
ABSENT = ("PIL", "deepspeed", "matplotlib", "nvidia.dali", "pydantic", "pytest_benchmark", "safetensors", "scipy",
          "tokenizers", "tqdm", "transformers", "triton_viz", "xformers", "yaml")
LEAN = f"""
import importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if any(name == absent or name.startswith(absent + ".") for absent in {ABSENT!r}):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
"""

spec = importlib.util.spec_from_file_location("gpu_session", SCRIPT)
gpu_session = importlib.util.module_from_spec(spec)
spec.loader.exec_module(gpu_session)


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
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    modules = "kaleido_fast.bench.kernels, kaleido_fast.bench.training_steps, kaleido_fast.bench.environment"
    done = subprocess.run([sys.executable, "-c", f"import {modules}"], cwd=ROOT, capture_output=True, text=True,
                          env=environment)
    assert done.returncode == 0, done.stderr[-1000:]
