"""What a part's process does: ours is told before anything it is compared with, and what breaks beside it is a line."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kaleido_fast.bench.session import work
from kaleido_fast.bench.session.report import Report, merged
from kaleido_fast.bench.session.work import Job, Sizes
from kaleido_fast.bench.step_shape import SHAPES
from kaleido_fast.bench.training_ways import OurSteps, other_ways, our_steps

TINY = replace(
    SHAPES["base"], kaleido=replace(SHAPES["base"].kaleido, patch_size=17),
    data=replace(SHAPES["base"].data, image_size=60, max_tokens=24),
    model=replace(SHAPES["base"].model, hidden=24, layers=1, heads=2, intermediate=32))
SIZES = Sizes(step_rounds=1, steps=1, micro_batch={"base": 16}, shapes={"base": TINY})


def steps(tmp_path: Path, *cases: str) -> list[dict[str, Any]]:
    """The lines that the part step-base wrote."""
    file = tmp_path / "lines"
    work.steps("base")(Job(torch.device("cpu"), SIZES, Report(file), cases))
    return [json.loads(line) for line in file.read_text().splitlines()]


def figures(lines: list[dict[str, Any]]) -> dict[str, Any]:
    whole: dict[str, Any] = {}
    for line in lines:
        whole = merged(whole, line.get("figures", {}))
    return whole


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kaleido_fast.bench.training_steps.matmul_tflops", lambda *_, rounds: 1.0)


def test_ours_is_told_first_and_baselines_that_lack_something_or_break_are_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ways(shape: Any, manifest: Any, batches: Any, ours: Any, names: list[str]) -> dict[str, Any]:
        if names == ["ours-varlen"]:
            raise RuntimeError("CUDA out of memory\nmore")
        return other_ways(shape, manifest, batches, ours, names)

    monkeypatch.setattr(work, "other_ways", ways)
    monkeypatch.setattr(work, "missing_package", lambda way: "transformers" if way == "visualbert" else None)
    lines = steps(tmp_path, "kaleido_fast", "ours-varlen", "visualbert", "ours-eager", "reference")
    told = [name for line in lines for name in line.get("figures", {}).get("ways", ())]
    assert told == ["kaleido_fast", "reference"] and not [line for line in lines if "failed" in line]
    assert [line["end"] for line in lines if "end" in line] == [
        "kaleido_fast", "ours-varlen", "visualbert", "ours-eager", "reference"]
    whole = figures(lines)
    assert whole["left_out"] == {
        "ours-varlen": "RuntimeError: CUDA out of memory", "visualbert": "transformers is not installed",
        "ours-eager": "that is ours"}
    assert whole["samples_per_s"] > 0 and whole["profile"] and whole["ways"]["reference"]["times_ours"] > 0


def test_steps_that_do_not_compile_are_taken_eagerly_and_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(shape: Any, manifest: Any, batches: Any) -> OurSteps:
        if shape.model.compile:
            raise RuntimeError("C++ compile error\nmore")
        return our_steps(shape, manifest, batches)

    on = type(TINY).on
    monkeypatch.setattr(type(TINY), "on", lambda self, device: replace(
        on(self, device), model=replace(on(self, device).model, compile=True)))
    monkeypatch.setattr(work, "our_steps", build)
    whole = figures(steps(tmp_path, "kaleido_fast", "ours-eager"))
    assert whole["compile"] is False and whole["ways"]["kaleido_fast"]["median_ms"] > 0
    assert whole["left_out"] == {"ours-compiled": "RuntimeError: C++ compile error", "ours-eager": "that is ours"}


def test_a_profiler_that_cannot_run_costs_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_profiler(*inputs: Any) -> None:
        raise RuntimeError("CUPTI_ERROR_NOT_INITIALIZED")

    monkeypatch.setattr(work, "profile_steps", no_profiler)
    lines = steps(tmp_path, "kaleido_fast")
    assert figures(lines)["samples_per_s"] > 0 and lines[-1] == {"end": "kaleido_fast"}
    assert figures(lines)["left_out"] == {"profile": "RuntimeError: CUPTI_ERROR_NOT_INITIALIZED"}


def test_without_ours_nothing_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*inputs: Any) -> None:
        raise RuntimeError("no kernel image")

    monkeypatch.setattr(work, "our_steps", broken)
    with pytest.raises(SystemExit, match="the steps of base do not run: nothing can stand beside them"):
        steps(tmp_path, "kaleido_fast", "reference")
    lines = [json.loads(line) for line in (tmp_path / "lines").read_text().splitlines()]
    assert lines == [{"begin": "kaleido_fast"}, {"failed": "kaleido_fast", "why": "RuntimeError: no kernel image"}]


def test_a_device_that_is_lost_ends_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The session begins another for what is left."""
    monkeypatch.setattr("kaleido_fast.bench.session.report.device_is_lost", lambda: True)
    report = Report(tmp_path / "lines")
    with pytest.raises(RuntimeError, match="illegal memory access"), report.case("cut"):
        raise RuntimeError("illegal memory access")
    assert json.loads((tmp_path / "lines").read_text().splitlines()[-1])["failed"] == "cut"
