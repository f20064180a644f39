"""The session's command line: the parts' order, what is written and where, and that torch, triton, numpy and pytest suffice."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from kaleido_fast.bench.session import parts as table, program
from kaleido_fast.bench.session.parts import BASELINES, DEFAULT, KERNELS, MORE, STEP_WAYS, TESTS, make_parts
from kaleido_fast.bench.session.results import commit_of
from kaleido_fast.bench.session.runner import Part
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
IMPORTS = "import kaleido_fast.bench.session.work, kaleido_fast.bench.packing"


@pytest.mark.skipif(torch.cuda.is_available(), reason="shows what is said without a CUDA device")
def test_without_a_device_an_earlier_file_stays_as_it_was(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    out.write_text("figures of another machine")
    done = subprocess.run([sys.executable, str(SCRIPT), "--out", str(out)], capture_output=True, text=True)
    assert done.returncode == 1 and out.read_text() == "figures of another machine"
    assert done.stderr.strip() == "gpu_session: no CUDA device found"


def run(monkeypatch: pytest.MonkeyPatch, parts: dict[str, str], *arguments: str) -> tuple[int, list[str]]:
    """The session over parts that are programs: its exit code, and the parts that were started, in order."""
    started: list[str] = []

    def made(entry: Path, options: Sequence[str] = ()) -> dict[str, Part]:
        def part(name: str, text: str) -> Part:
            def command(lines: Path, cases: Sequence[str]) -> list[str]:
                started.append(name)
                return [sys.executable, "-c", f"import time\nlines = open({str(lines)!r}, 'a')\n{text}"]
            return Part(name, 60, command)
        return {name: part(name, text) for name, text in ({"environment": ""} | parts).items()}

    monkeypatch.setattr(program, "make_parts", made)
    monkeypatch.setattr(program.signal, "signal", lambda number, handler: None)
    return program.main(SCRIPT, "", lambda: None, ["--parts", *parts, *arguments]), started


def test_a_part_that_fails_costs_no_other_and_the_file_has_both(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    out = tmp_path / "folder" / "gpu.json"
    code, started = run(monkeypatch, {
        "kernels": "print('{\"figures\": {\"copy\": 3}}', file=lines, flush=True); raise OSError('gone')",
        "tests": ""}, "--out", str(out), "--commit", "abc")
    found = json.loads(out.read_text())
    assert code == 1 and started == ["environment", "kernels", "tests"] and found["commit"] == "abc"
    assert {name: part["status"] for name, part in found["parts"].items()} == {
        "environment": "ok", "kernels": "failed", "tests": "ok"}
    assert found["parts"]["kernels"]["result"] == {"copy": 3} and "OSError: gone" in found["parts"]["kernels"]["output"]


def test_after_the_sessions_time_nothing_begins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    code, started = run(monkeypatch, {"kernels": "time.sleep(60)", "tests": ""}, "--out", str(out), "--minutes", "0.15")
    found = json.loads(out.read_text())["parts"]
    assert code == 1 and started == ["environment", "kernels"]
    assert found["kernels"]["failed"] == {"kernels": "the session's time was over"}
    assert found["tests"] == {"status": "skipped", "why": "the session's time was over", "seconds": 0.0}


def test_the_file_lies_where_out_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OUT", str(tmp_path))
    assert run(monkeypatch, {"tests": ""})[0] == 0 and (tmp_path / "gpu.json").exists()


def test_the_most_valuable_parts_come_first() -> None:
    assert DEFAULT[:4] == ("environment", "kernels", "step-base", "loop")
    later = [DEFAULT.index(name) for name in ("tests", "sanitizer", "racecheck", "step-base_computed")]
    assert later == sorted(later)
    assert STEP_WAYS[0] == BASELINES[0] == "kaleido_fast", "ours before what it is compared with"
    parts = make_parts(SCRIPT)
    assert set(parts) == {*DEFAULT, *MORE}
    assert sum(parts[name].limit_s for name in DEFAULT[:4]) < 0.8 * 480, "four parts at their limits leave time for others"


def test_the_sanitizer_sees_each_tensor_and_races(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "compute_sanitizer", lambda: "compute-sanitizer")
    parts = make_parts(SCRIPT, ["--commit", "abc"])
    checked = {name: parts[name].command(Path("lines"), parts[name].cases) for name in ("sanitizer", "racecheck")}
    own = [sys.executable, str(SCRIPT), "--run-part"]
    assert checked["sanitizer"][:7] == [
        "compute-sanitizer", "--tool", "memcheck", "--report-api-errors", "no", "--error-exitcode", "9"]
    assert checked["sanitizer"][7:] == [*own, "sanitizer", "--lines", "lines", "--commit", "abc", "--cases", *KERNELS]
    assert checked["racecheck"][1:3] == ["--tool", "racecheck"] and checked["racecheck"][-2:] == ["cut", "embed"]
    for name in checked:
        assert parts[name].environment["PYTORCH_NO_CUDA_MEMORY_CACHING"] == "1", "memcheck knows cudaMalloc's blocks alone"


def test_what_is_not_there_is_said_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = {"nvidia.dali", "deepspeed", "xdist"}
    monkeypatch.setattr(table, "is_there", lambda name: name not in absent)
    monkeypatch.setattr(table, "compute_sanitizer", lambda: None)
    parts = make_parts(SCRIPT)
    assert parts["loop"].why_not == "deepspeed not installed"
    assert parts["loader"].why_not == parts["loop-tests"].why_not == "nvidia.dali, deepspeed not installed"
    assert parts["racecheck"].why_not == "compute-sanitizer: not found on PATH or under CUDA_HOME"
    assert "-n" not in parts["tests"].command(Path("lines"), ())
    absent.clear()
    assert parts["tests"].why_not == make_parts(SCRIPT)["loop"].why_not == ""
    assert make_parts(SCRIPT)["tests"].command(Path("lines"), ())[-2:] == ["-n", "8"]


def test_a_package_in_a_package_that_is_not_there_is_not_there() -> None:
    assert not table.is_there("no_such_package.inside") and table.is_there("torch.cuda")


def test_tests_are_counted_though_they_are_cut() -> None:
    alone = "tests/kernels/test_a.py::test_b[x y] PASSED   [ 10%]\ntests/kernels/test_a.py::test_c FAILED   [ 20%]\ntests/k"
    several = "[gw3] [  1%] PASSED tests/kernels/test_a.py::test_b[x y] \n[gw0] [  3%] ERROR tests/gpu/test_d.py::test_e\n" \
              "tests/gpu/test_d.py::test_f \n[gw1] [  4%] SKIPPED tests/gpu/test_d.py::test_f "
    assert table.pytest_counts(alone) == {
        "passed": 1, "failed": 1, "error": 0, "skipped": 0, "red": ["tests/kernels/test_a.py::test_c"]}
    assert table.pytest_counts(several) == {
        "passed": 1, "failed": 0, "error": 1, "skipped": 1, "red": ["tests/gpu/test_d.py::test_e"]}


def test_a_changed_tree_is_not_called_by_its_commit(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    assert commit_of(tmp_path) is None
    git("init", "-q")
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "cut.py").write_text("1")
    git("add", ".")
    git("commit", "-q", "-m", "one")
    commit = git("rev-parse", "--short", "HEAD")
    (tmp_path / "notes.txt").write_text("a result")
    assert commit_of(tmp_path) == commit
    (tmp_path / "kernels" / "new.py").write_text("2")
    assert commit_of(tmp_path) == f"{commit}-dirty"


def test_help_says_how_a_bare_machine_is_used() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), "--help"], capture_output=True, text=True)
    assert "one command of about eight minutes" in done.stdout and "--install .whl --minutes 8" in done.stdout


@pytest.mark.slow
def test_torch_triton_numpy_and_pytest_suffice(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(LEAN)
    environment = {"PYTHONPATH": str(tmp_path), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    for command in ([*plain_tests(), "--collect-only"], [sys.executable, "-c", IMPORTS]):
        done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


def plain_tests() -> list[str]:
    """The tests' command without the plugin for several processes, which is not loaded here."""
    command: list[Any] = list(make_parts(SCRIPT)["tests"].command(Path("lines"), ()))
    return command[: command.index("-n")] if "-n" in command else command


def test_every_test_for_a_gpu_is_run() -> None:
    run = [REPO / place for places in TESTS.values() for place in places]
    for file in (REPO / "tests").rglob("test_*.py"):
        if "pytest.mark.gpu" + "\n" in file.read_text(encoding="utf-8"):
            assert any(place == file or place in file.parents for place in run), file
