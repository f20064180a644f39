"""Everything that needs a GPU, in one command and one JSON file: environment, tests on the device, compute-sanitizer,
kernel benchmarks, training steps of base, base_computed and large beside the plain path and Hugging Face's VisualBERT, the
loader and the training loop.

    pip install --no-deps --no-build-isolation -e .
    python benchmarks/gpu_session.py --out benchmarks/results/gpu-h100.json
    python benchmarks/render.py

torch, triton, numpy and pytest are all it needs; VisualBERT is left out without transformers, and the loader and the loop
say which package they miss (with all of them they draw a catalogue, or take --shards). Each part runs in a process of its
own, and the file is written after each, so that one that fails or runs out of time costs no other its result; exit code 1
where one failed.
"""

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("environment", "tests", "loop-tests", "sanitizer", "kernels", "step-base", "step-base_computed", "step-large",
         "loader", "end-to-end")
MICRO_BATCH = {"base": 256, "base_computed": 256, "large": 128}  # samples; 64 text tokens each, as the goals have it
TESTS = {  # what has the marker gpu
    "tests": ("tests/kernels", "tests/gpu", "tests/model/test_xformers_attention.py",  # nothing there needs another package
              "tests/model/patch_encoders/test_frozen.py"),
    "loop-tests": ("tests/data/batches/test_upload.py", "tests/training/test_no_waiting.py", "tests/parity/test_verb.py"),
}
TAIL = 4000  # characters of a failed part's output that are kept


def main() -> int:
    """Run the parts asked for, or, in a process of its own, one of them."""
    options = _options()
    if options.run_part:
        print(json.dumps(_WORK[options.run_part](options)))
        return 0
    _cuda()  # without one nothing is written
    results: dict[str, Any] = {"command": "python benchmarks/gpu_session.py", "parts": {}}
    for part in options.parts:
        print(f"{part} ...", flush=True)
        results["parts"][part] = found = _in_a_process(part, options.limit, options.shards)
        print(f"{part}: {'ok' if found['ok'] else 'FAILED'} in {found['seconds']:.0f} s", flush=True)
        if not found["ok"]:
            print(found["output"][-1500:], flush=True)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0 if all(found["ok"] for found in results["parts"].values()) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/gpu.json"), help="JSON file to write")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--limit", type=float, default=300.0, help="seconds a part may take")
    parser.add_argument("--shards", type=Path, help="a real catalogue's, for the loader and the loop; a drawn one without it")
    parser.add_argument("--run-part", choices=tuple(_WORK), help=argparse.SUPPRESS)
    return parser.parse_args()


def _in_a_process(part: str, limit_s: float, shards: Path | None = None) -> dict[str, Any]:
    """{"ok", "seconds", "result" or "output"} of one part."""
    start = time.perf_counter()
    command = _command(part)
    if command is None:
        return {"ok": False, "seconds": 0.0, "output": "compute-sanitizer: not found on PATH or under CUDA_HOME"}
    if part == "loop-tests" and (missing := _missing()):
        return {"ok": True, "seconds": 0.0, "result": f"not run: {missing}"}
    if shards is not None and part in _WORK:
        command = [*command, "--shards", str(shards.resolve())]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit_s)
    except subprocess.TimeoutExpired as error:
        output = (error.stdout or b"").decode(errors="replace")
        return {"ok": False, "seconds": time.perf_counter() - start, "output": f"over {limit_s:g} s\n{output[-TAIL:]}"}
    found: dict[str, Any] = {"ok": done.returncode == 0, "seconds": time.perf_counter() - start}
    if not found["ok"]:
        return found | {"output": done.stdout[-TAIL:] + done.stderr[-TAIL:]}
    last = done.stdout.strip().splitlines()[-1]
    return found | {"result": json.loads(last) if part in _WORK else last}


def _command(part: str) -> list[str] | None:
    own = [sys.executable, str(Path(__file__).resolve()), "--run-part"]
    if part in TESTS:
        # pytest.ini names options of a plugin that a GPU machine may lack
        return [sys.executable, "-m", "pytest", *TESTS[part], "-q", "-m", "gpu", "-o", "addopts=", "--import-mode=importlib"]
    if part == "sanitizer":
        tool = _compute_sanitizer()
        return None if tool is None else [tool, "--tool", "memcheck", "--error-exitcode", "9", *own, "sanitized"]
    return [*own, part]


def _compute_sanitizer() -> str | None:
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    return shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path=f"{home}/bin")


def _environment(options: argparse.Namespace) -> dict[str, Any]:
    from kaleido_fast.bench.environment import describe_environment

    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return describe_environment(_cuda()) | {"commit": commit.stdout.strip() or None}


def _kernels(options: argparse.Namespace) -> dict[str, Any]:
    from kaleido_fast.bench.kernels import bench_kernels

    return bench_kernels(_cuda())


def _sanitized(options: argparse.Namespace) -> dict[str, Any]:
    """Each operation once at sizes that divide into nothing; compute-sanitizer watches."""
    import torch

    from kaleido_fast.bench.kernel_cases import Scale, kernel_cases

    small = Scale(samples=48, image_size=60, patch_size=18, hidden=200, rows=77, features=777)
    for make in kernel_cases(_cuda(), small).values():
        make().calls["kaleido_fast"]()
    torch.cuda.synchronize()
    return {}


def _steps(name: str) -> Callable[[argparse.Namespace], dict[str, Any]]:
    """Steps of a shape at stage 0 in bf16, with what of the baselines is installed."""
    def measure(options: argparse.Namespace) -> dict[str, Any]:
        from kaleido_fast.bench.step_shape import SHAPES
        from kaleido_fast.bench.training_steps import Measuring, bench_steps, drawn_steps
        from kaleido_fast.bench.training_ways import BASELINES, OTHERWISE, missing_package
        from kaleido_fast.training.build import picked_attention

        shape = SHAPES[name].on(_cuda()).with_batch(MICRO_BATCH[name])
        batches, manifest, said = drawn_steps(shape, (shape.data.max_tokens,) * 2)
        others = (*BASELINES, *(way for way, settings in OTHERWISE.items() if _differs(shape.model, settings)))
        missing = {way: f"{package} is not installed" for way in others if (package := missing_package(way))}
        against = tuple(way for way in others if way not in missing)
        found = bench_steps(shape, manifest, batches, Measuring(against=against, profiled=1))
        picked = {"attention": picked_attention(shape, _cuda()).kernels, "compile": shape.model.compile}
        return {"texts": said, "left_out": missing} | picked | found

    return measure


def _differs(model: Any, settings: dict[str, Any]) -> bool:
    return any(getattr(model, key) != value for key, value in settings.items())


def _loop(tool: str) -> Callable[[argparse.Namespace], dict[str, Any]]:
    """The loader alone or the whole loop, from the store and from photographs; or which package is not there."""
    def measure(options: argparse.Namespace) -> dict[str, Any]:
        if missing := _missing():
            return {"not_measured": missing}
        from kaleido_fast.bench.catalogue import loop_figures
        from kaleido_fast.config import load_config

        return loop_figures(load_config, tool, _cuda(), options.shards)

    return measure


def _missing() -> str:
    """Which packages the loader and the loop lack here; empty where none."""
    missing = [name for name in LOOP_PACKAGES if not _is_there(name)]
    return f"{', '.join(missing)} not installed" if missing else ""


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # the package that it lies in
        return False


def _cuda() -> Any:
    import torch

    if not torch.cuda.is_available():
        raise SystemExit("gpu_session: no CUDA device found")
    return torch.device("cuda")


LOOP_PACKAGES = ("nvidia.dali", "deepspeed", "pydantic", "yaml", "tokenizers", "PIL", "tqdm", "safetensors")
_WORK = {"environment": _environment, "kernels": _kernels, "sanitized": _sanitized, "loader": _loop("loader"),
         "end-to-end": _loop("end-to-end"), **{f"step-{name}": _steps(name) for name in MICRO_BATCH}}


if __name__ == "__main__":
    sys.exit(main())
