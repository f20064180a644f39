"""The benchmarks' own parts, small and on CPU: cases agree, steps run, the page says what the files say, errors."""

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_session, render
from benchmarks.kernel_cases import CASES, COMPILED, KERNEL, REFERENCE, Case, Sizes
from benchmarks.synthetic import RULES, synthetic_batch
from benchmarks.training_steps import Shape, measure_training
from kaleido_fast.cli import main
from kaleido_fast.model.settings import KaleidoSettings, ModelSettings

SMALL = Sizes(samples=16, image_size=60, patch_size=8, tokens=12, hidden=16, vocabulary=64, masked_rows=6, features=24)
BYTES = {
    "plan_case": 16 * (12 * 4 + 4 + 12 * 8 + 8 + 8 + 1 + 8) + 8 + 16 * 4 * (6 + 2 + 3 + 55 + 12 + 10 + 10 + 1),
    "cut_case": 16 * (3 * 60 * 60 + 57 * 3 * 8 * 8 * 2),
    "softmax_kl_case": 6 * 24 * 6,
}


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_cases_agree_and_their_baselines_run(make: Callable[[Sizes, str], Case]) -> None:
    case = make(SMALL, "cpu")
    case.check()
    assert {KERNEL, REFERENCE, COMPILED} <= set(case.runs)
    assert case.moved_bytes == BYTES.get(make.__name__, case.moved_bytes) > 0
    for name in set(case.runs) - {KERNEL, REFERENCE, COMPILED}:
        case.runs[name]()


def test_a_case_that_differs_gives_no_time() -> None:
    runs = {KERNEL: lambda: torch.tensor([1.0, 2.1]), REFERENCE: lambda: torch.tensor([1.0, 2.0])}
    Case("close", 1, 1, runs, goal=None, bound=0.06).check()
    with pytest.raises(AssertionError, match="off: differs by 0.0999.* of 2.0"):
        Case("off", 1, 1, runs, goal=None, bound=0.01).check()
    broken = {KERNEL: lambda: torch.tensor([1.0, float("nan")]), REFERENCE: runs[REFERENCE]}
    with pytest.raises(AssertionError, match="nan: differs by nan"):
        Case("nan", 1, 1, broken, goal=None, bound=1).check()


def test_synthetic_batches_differ_by_sample_and_fit_the_plan() -> None:
    batch = synthetic_batch(32, 20, 60, "cpu")
    assert len(batch.keys.unique()) == 32 and 10 <= int(batch.lengths.min()) and int(batch.lengths.max()) <= 20
    assert (batch.alignment[:, 0] == 0).all() and 0.05 < float((batch.alignment != 0).double().mean()) < 0.3
    assert (batch.tokens.gather(1, batch.lengths[:, None].long() - 1) == 102).all()
    assert int(batch.tokens.max()) <= RULES.ordinary_last


def test_training_steps_on_cpu() -> None:
    model = ModelSettings(hidden=16, layers=1, heads=2, intermediate=32)
    shape = Shape(model, KaleidoSettings(patch_size=8), image_size=60, tokens=12, samples=16)
    found = measure_training(shape, "cpu", steps=1, warm_up=1)
    assert math.isfinite(found["loss"]) and found["slowest"] and found["step_ms"] == []
    json.dumps(found)


def test_page_without_results_says_so(tmp_path: Path) -> None:
    page = render.render(tmp_path)
    assert page.count("Not measured yet.") == 4


def test_page_shows_the_session(tmp_path: Path) -> None:
    ms = {"kernel": 0.5, "reference": 9.0, "compiled": 2.0, "57 resizes": 7.0, "copy": 0.4}
    cut = {"case": "cut S=240 P=48", "ms": ms, "gbps": 2000.0, "copy_share": 0.8, "times_compiled": 4.0, "goal": [0.7, 3.0]}
    slow = cut | {"case": "embed", "copy_share": 0.5}
    step = {"shape": {"samples": 128}, "step_ms": [3.0, 1.0, 2.0], "samples_per_s": 64000.0, "peak_mib": 2048.0}
    session = {
        "environment": {"gpu": "NVIDIA H100"}, "training": step,
        "kernels": {"cut_case": cut, "embed_case": slow, "plan_case": {"error": "AssertionError: plan: differs"}},
    }
    (tmp_path / "gpu_session.json").write_text(json.dumps(session))
    page = render.render(tmp_path)
    assert "| cut S=240 P=48 | 0.500 | 9.000 | 2.000 | 57 resizes 7.000 | 2000 | 80% | 4.00 | yes |" in page
    assert "| embed | 0.500 | 9.000 | 2.000 | 57 resizes 7.000 | 2000 | 50% | 4.00 | no |" in page
    assert "| plan_case | **AssertionError: plan: differs** |" in page and "- gpu: NVIDIA H100" in page
    assert "128 samples a step, synthetic batches: median 2.0 ms, 64000 samples/s, peak 2.0 GiB." in page


def test_committed_page_is_rendered_from_the_committed_results() -> None:
    assert render.PAGE.read_text(encoding="utf-8") == render.render(), "run python -m benchmarks.render"


def test_a_section_that_fails_is_kept_and_the_next_still_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> dict[str, object]:
        raise RuntimeError("out of memory")

    sections = {"environment": lambda: {"gpu": "x"}, "kernels": broken, "training": lambda: {"loss": 1.0}}
    monkeypatch.setattr(gpu_session, "SECTIONS", sections)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert gpu_session.main(["--only", "kernels", "training", "--out", str(tmp_path / "a" / "out.json")]) == 1
    found = json.loads((tmp_path / "a" / "out.json").read_text())
    assert found["kernels"] == {"error": "RuntimeError: out of memory"} and found["training"] == {"loss": 1.0}
    assert gpu_session.main(["--only", "training", "--out", str(tmp_path / "b.json")]) == 0
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["b.json"]


def test_tests_of_a_section_report_their_end() -> None:
    passed = gpu_session._tests((sys.executable, "-c", "print('3 passed')"))
    assert passed == {"exit_code": 0, "tail": "3 passed"}
    failed = gpu_session._tests((sys.executable, "-c", "raise SystemExit(9)"))
    assert failed["error"] == "exit code 9"


def test_the_session_collects_the_tests_for_a_device() -> None:
    found = gpu_session._tests(gpu_session.PYTEST, "-m", "gpu", "--collect-only", *gpu_session._kernel_tests())
    assert found["exit_code"] == 0 and "test_plan_triton.py::TestOnDevice::test_golden_file" in found["tail"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="for a machine without a GPU")
def test_without_a_gpu_the_verb_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "kernels", "--out", str(tmp_path / "kernels.json")]) == 2
    assert "gpu_session needs a CUDA device, none found; run it on a GPU machine" in capfd.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_verb_needs_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr("kaleido_fast.cli.__file__", str(tmp_path / "kaleido_fast" / "cli.py"))
    assert main(["bench", "kernels"]) == 2
    assert "benchmarks lie in the repository, found none in" in capsys.readouterr().err


@pytest.mark.gpu
def test_times_on_a_device() -> None:
    from benchmarks.timing import measure

    row = measure(CASES[0](SMALL, "cuda"), rounds=3).as_row()
    assert min(row["ms"].values()) > 0 and row["gbps"] > 0
    json.dumps(row)
