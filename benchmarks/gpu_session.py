"""One command for a GPU machine: environment, parity, compute-sanitizer, kernel benchmarks, ten training steps, one JSON.

    python -m benchmarks.gpu_session                  # all, into benchmarks/results/gpu_session.json
    python -m benchmarks.gpu_session --only kernels   # what `kaleido-fast bench kernels` runs

Needs torch, triton, numpy and pytest and an importable kaleido_fast (`pip install --no-deps --no-build-isolation -e .`).
A section that fails keeps its error in the JSON, the others still run, and the exit code is 1.
"""

import argparse
import json
import platform
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import triton

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "gpu_session.json"
# The kernels' own tests alone: no conftest above them, no option of a plugin and no package that may be absent.
PYTEST = (sys.executable, "-m", "pytest", "-q", "-o", "addopts=--import-mode=importlib", "--confcutdir=tests/kernels")


def environment() -> dict[str, object]:
    """Card, driver, versions, commit."""
    card = torch.cuda.get_device_properties(0)
    return {
        "gpu": card.name, "capability": f"{card.major}.{card.minor}", "memory_gib": card.total_memory / 2**30,
        "multiprocessors": card.multi_processor_count, "level_2_cache_mib": card.L2_cache_size / 2**20,
        "driver": _first_line("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "torch": torch.__version__, "cuda": torch.version.cuda, "triton": triton.__version__,
        "python": platform.python_version(), "commit": _first_line("git", "rev-parse", "HEAD"),
    }


def parity() -> dict[str, object]:
    """The tests marked `gpu`."""
    return _tests(PYTEST, "-m", "gpu", *_kernel_tests())


def compute_sanitizer() -> dict[str, object]:
    """The same tests under NVIDIA's memcheck, graphs and the compiler left out: it slows them a hundredfold."""
    tool = shutil.which("compute-sanitizer") or shutil.which("/usr/local/cuda/bin/compute-sanitizer")
    if tool is None:
        return {"skipped": "compute-sanitizer is not on this machine; it comes with the CUDA toolkit"}
    command = (tool, "--tool", "memcheck", "--target-processes", "all", "--error-exitcode", "9", *PYTEST)
    return _tests(command, "-m", "gpu", "-k", "not compile and not graph", *_kernel_tests())


def kernels() -> dict[str, object]:
    """A row a case; one that differs from its reference has an error instead of times."""
    from benchmarks.kernel_cases import CASES, Sizes
    from benchmarks.timing import measure

    rows = {make.__name__: _kept(lambda make=make: measure(make(Sizes(), "cuda")).as_row()) for make in CASES}
    return rows | ({"error": "see the rows"} if any("error" in row for row in rows.values()) else {})


def training() -> dict[str, object]:
    """Ten steps at the base size."""
    from benchmarks.training_steps import Shape, measure_training

    return measure_training(Shape(), "cuda")


SECTIONS = {x.__name__: x for x in (environment, parity, compute_sanitizer, kernels, training)}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="gpu_session", description="Everything that only a GPU can tell, as one JSON.")
    parser.add_argument("--only", nargs="+", choices=[*SECTIONS], default=[*SECTIONS])
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        raise ValueError("gpu_session needs a CUDA device, none found; run it on a GPU machine")
    results: dict[str, object] = {}
    for name in dict.fromkeys(("environment", *options.only)):
        print(f"{name} ...", flush=True)
        results[name] = _kept(SECTIONS[name])
        print(json.dumps(results[name], indent=1), flush=True)
        write(results, options.out)  # after each section: a machine may be taken away
    return 1 if any("error" in section for section in results.values()) else 0


def write(results: dict[str, object], out: Path) -> None:
    """Beside, then renamed: no one reads half a file."""
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_suffix(".part")
    beside.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    beside.replace(out)


def _kept(section: Callable[[], dict[str, object]]) -> dict[str, object]:
    try:
        return section()
    except Exception as error:  # it is reported, and the next section may still tell something
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"[:2000]}


def _kernel_tests() -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests" / "kernels").glob("test_*_triton.py"))


def _tests(command: Sequence[str], *arguments: str) -> dict[str, object]:
    done = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True)
    tail = "\n".join(done.stdout.splitlines()[-40:])
    result: dict[str, object] = {"exit_code": done.returncode, "tail": tail}
    return result | ({"error": f"exit code {done.returncode}"} if done.returncode else {})


def _first_line(*command: str) -> str | None:
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.splitlines()[0] if done.returncode == 0 and done.stdout else None


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ValueError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
