"""Parts of a session on a GPU machine: most valuable first, and how long each may take at most."""

import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kaleido_fast.bench.session.runner import Part

DEFAULT = ("environment", "kernels", "step-base", "loop", "tests", "sanitizer", "racecheck", "step-base_computed",
           "baselines-base")
MORE = ("loop-tests", "step-large", "loader", "end-to-end")  # where there is time, and what they need
KERNELS = ("plan", "softmax_kl", "embed", "cut", "embed_backward")
STEP_WAYS = ("kaleido_fast", "ours-varlen", "reference")
BASELINES = ("kaleido_fast", "visualbert", "visualbert-compiled", "ours-eager")
TESTS = {  # what has the marker gpu
    "tests": ("tests/kernels", "tests/gpu",  # nothing there needs another package
              "tests/model/attention/test_xformers_attention.py", "tests/model/patch_encoders/test_frozen.py"),
    "loop-tests": ("tests/data/batches/test_upload.py", "tests/training/test_no_waiting.py", "tests/parity/test_verb.py"),
}
RACY = ("cut", "embed")  # kernels whose warps meet in shared memory
PROCESSES = 8  # of the tests
LOOP_PACKAGES = ("deepspeed", "pydantic", "yaml", "tokenizers", "PIL", "tqdm", "safetensors")
PHOTOGRAPH_PACKAGES = ("nvidia.dali", *LOOP_PACKAGES)
# memcheck knows the blocks that the driver gave: torch must take one for each tensor. Triton asks the driver for things that
# are not there; those answers are no errors.
CHECKED = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
SANITIZER = ("--report-api-errors", "no", "--error-exitcode", "9")
UNSUPPORTED = ("Device not supported",)  # what compute-sanitizer says where the machine does not let it


def make_parts(entry: Path, options: Sequence[str] = ()) -> dict[str, Part]:
    """All parts by name.

    Args:
        entry: the program that runs a part as `entry --run-part NAME --lines FILE --cases CASE ...`.
        options: further arguments for it.
    """
    def own(name: str, before: Sequence[str] = ()) -> Any:
        def command(lines: Path, cases: Sequence[str]) -> list[str]:
            return [*before, sys.executable, str(entry), "--run-part", name, "--lines", str(lines), *options,
                    *(["--cases", *cases] if cases else [])]
        return command

    photographs, loop = missing(PHOTOGRAPH_PACKAGES), missing(LOOP_PACKAGES)
    tool = compute_sanitizer()
    unchecked = "" if tool else "compute-sanitizer: not found on PATH or under CUDA_HOME"
    memcheck, racecheck = ((tool or "", "--tool", name, *SANITIZER) for name in ("memcheck", "racecheck"))
    parts = [
        Part("environment", 30, own("environment")),
        Part("kernels", 110, own("kernels"), KERNELS, case_limit_s=40),
        Part("step-base", 150, own("step-base"), STEP_WAYS, case_limit_s=120),
        Part("loop", 90, own("loop"), why_not=loop),
        Part("tests", 110, tests_command("tests"), read=pytest_counts),
        Part("sanitizer", 90, own("sanitizer", memcheck), KERNELS, 40, unchecked, CHECKED, skips=UNSUPPORTED),
        Part("racecheck", 60, own("racecheck", racecheck), RACY, 40, unchecked, CHECKED, skips=UNSUPPORTED),
        Part("step-base_computed", 120, own("step-base_computed"), ("kaleido_fast", "reference"), case_limit_s=90),
        Part("baselines-base", 150, own("baselines-base"), BASELINES, case_limit_s=100),
        Part("loop-tests", 120, tests_command("loop-tests"), why_not=photographs, read=pytest_counts),
        Part("step-large", 300, own("step-large"), STEP_WAYS, case_limit_s=150),
        Part("loader", 300, own("loader"), why_not=photographs),
        Part("end-to-end", 300, own("end-to-end"), why_not=photographs),
    ]
    return {part.name: part for part in parts}


def tests_command(name: str) -> Any:
    """pytest over what has the marker gpu, on several processes where pytest-xdist is there."""
    several = ["-n", str(PROCESSES)] if is_there("xdist") else []

    def command(lines: Path, cases: Sequence[str]) -> list[str]:
        # pytest.ini names options of a plugin that a GPU machine may lack
        return [sys.executable, "-m", "pytest", *TESTS[name], "-v", "-m", "gpu", "-o", "addopts=", "--import-mode=importlib",
                "-p", "no:cacheprovider", *several]

    return command


def pytest_counts(text: str) -> dict[str, Any]:
    """What pytest -v printed so far: how many of each outcome, and which failed; whole or cut."""
    outcomes: dict[str, str] = {}
    for line in text.splitlines():
        # alone "tests/a.py::test_b PASSED", on several processes "[gw3] [ 12%] PASSED tests/a.py::test_b"
        if found := re.match(r"(tests/\S+::.+?) (PASSED|FAILED|ERROR|SKIPPED)\b", line):
            outcomes[found[1]] = found[2]
        elif found := re.match(r"\[gw\d+\].*?(PASSED|FAILED|ERROR|SKIPPED) (tests/\S+::.+)", line):
            outcomes[found[2].strip()] = found[1]
    counts = {kind.lower(): sum(outcome == kind for outcome in outcomes.values())
              for kind in ("PASSED", "FAILED", "ERROR", "SKIPPED")}
    return counts | {"red": sorted(name for name, outcome in outcomes.items() if outcome in ("FAILED", "ERROR"))}


def missing(packages: Sequence[str]) -> str:
    """Which of the packages are not there, in words; empty where all are."""
    absent = [name for name in packages if not is_there(name)]
    return f"{', '.join(absent)} not installed" if absent else ""


def is_there(package: str) -> bool:
    """Whether it can be found; it is not imported."""
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # the package that it lies in
        return False


def compute_sanitizer() -> str | None:
    """Its program."""
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    return shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path=f"{home}/bin")
