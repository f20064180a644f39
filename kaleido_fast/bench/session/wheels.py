"""What a GPU machine without a network must be brought: fetched or built here, installed there.

Such a machine has Python, torch and triton for CUDA, NumPy, pytest and what goes with them; the packages below are often not
there. DALI's wheel is too large to be carried: what reads photographs is measured where it is installed.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

INSTALL_S = 60  # seconds
MOST_MIB = 64  # what such machines take along
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64",
             "manylinux_2_12_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64")
ATTENTION = ("xformers==0.0.35", "nvidia-cuda-runtime-cu12")  # built for CUDA 12: it needs that runtime beside torch's own
BUILT = ("deepspeed==0.19.8",)  # has no wheel; without its own operators one serves all machines
LOOP = ("einops", "hjson", "msgpack", "ninja", "packaging", "psutil", "py-cpuinfo", "tqdm", "pyyaml", "safetensors")
WITH_THEIR_OWN = ("pydantic",)  # asks for one version of its core
TESTS = ("pytest-xdist", "execnet")
EXPECTED = "torch>=2.11 for CUDA, triton>=3.6, numpy, pytest, pillow, tokenizers; transformers for VisualBERT"


def fetch_wheels(folder: Path, python: str) -> int:
    """Put them into `folder` for a CPython such as "3.12" on x86-64 Linux, say what they weigh; the exit code."""
    folder.mkdir(parents=True, exist_ok=True)
    download = [sys.executable, "-m", "pip", "download", "-q", "--only-binary=:all:", "--implementation", "cp",
                "--python-version", python, "-d", str(folder), *(part for name in PLATFORMS for part in ("--platform", name))]
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    failed = [*_each([*download, "--no-deps"], (*ATTENTION, *LOOP, *TESTS)), *_each(download, WITH_THEIR_OWN),
              *_each(build, BUILT)]
    wheels = sorted(folder.glob("*.whl"))
    mib = sum(wheel.stat().st_size for wheel in wheels) / 2**20
    for wheel in wheels:
        print(f"{wheel.stat().st_size / 2**20:7.2f} MiB  {wheel.name}")
    print(f"{mib:7.2f} MiB  of {MOST_MIB} MiB; expected on the machine: {EXPECTED}")
    for requirement in failed:
        print(f"gpu_session --wheels {folder}: {requirement} could not be fetched or built for Python {python}; put its wheel "
              "there by hand, or do without what needs it")
    return int(bool(failed) or mib > MOST_MIB)


def _each(command: Sequence[str], requirements: Sequence[str]) -> list[str]:
    """Run a pip command for each; those that it failed for."""
    environment = {**os.environ, "DS_BUILD_OPS": "0"}
    return [requirement for requirement in requirements
            if subprocess.run([*command, requirement], env=environment, stdin=subprocess.DEVNULL).returncode]


def install_wheels(folder: Path, target: Path) -> str:
    """Unpack the wheels of `folder` into `target`, which must go on PYTHONPATH; why they could not be, or nothing."""
    wheels = sorted(str(wheel) for wheel in folder.glob("*.whl"))
    if not wheels:
        return f"{folder}: no wheels there; gpu_session.py --wheels {folder} fetches them on a machine with a network"
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile", "--no-cache-dir",
               "--upgrade", "--target", str(target), *wheels]
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=INSTALL_S)
    except subprocess.TimeoutExpired:
        return f"{folder}: its wheels were not installed after {INSTALL_S} s; the session goes on without the rest"
    return "" if done.returncode == 0 else (done.stderr.strip() or done.stdout.strip())[-1000:]
