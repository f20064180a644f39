"""What the parts of a session do, each in a process of its own (runner.py), telling figures as they come (report.py)."""

import gc
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from kaleido_fast.bench.environment import describe_environment
from kaleido_fast.bench.harness import time_alternating
from kaleido_fast.bench.kernel_cases import Scale, kernel_cases
from kaleido_fast.bench.kernels import forget, measure_case, measured_roof
from kaleido_fast.bench.session.report import Report, device_is_lost, reason
from kaleido_fast.bench.step_shape import SHAPES, Shape
from kaleido_fast.bench.training_steps import alone_figures, drawn_steps, profile_steps, way_figures
from kaleido_fast.bench.training_ways import OURS, OurSteps, missing_package, other_ways, our_steps
from kaleido_fast.data.batches.batch import Batch
from kaleido_fast.data.shards.manifest import Manifest
from kaleido_fast.training.build import picked_attention

# Sizes that divide into nothing: what reads or writes past an end does it there.
ODD = Scale(samples=48, image_size=60, patch_size=18, hidden=200, rows=77, features=777)
LEFT_OUT = {"plan": {"compiled": "18 graphs between which it waits for the device; 13 s to trace them"}}


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured; the defaults are for one large GPU."""

    scale: Scale = Scale()
    checked: Scale = ODD  # under compute-sanitizer
    rounds: int = 15  # of a kernel
    step_rounds: int = 5
    steps: int = 4  # optimizer steps on batches of their own
    micro_batch: dict[str, int] = field(default_factory=lambda: {"base": 256, "base_computed": 256, "large": 128})  # samples
    shapes: dict[str, Shape] = field(default_factory=lambda: SHAPES)
    stored_samples: int = 4096  # of the store that the loop reads, 303 kB each
    loop_steps: int = 60  # and so many of its step alone


@dataclass(frozen=True, slots=True)
class Job:
    """What a part's process was started for."""

    device: torch.device
    sizes: Sizes
    report: Report
    cases: tuple[str, ...] = ()  # that are left to do
    commit: str | None = None
    shards: Path | None = None  # a real catalogue's
    load_config: Callable[[], Any] | None = None  # config.load_config, imported when it is asked for


def environment(job: Job) -> None:
    """The machine, the packages, the commit."""
    job.report.figures(describe_environment(job.device) | {"commit": job.commit})


def kernels(job: Job) -> None:
    """Each operation beside its reference, eager and compiled, and beside a copy."""
    sizes, makers = job.sizes, kernel_cases(job.device, job.sizes.scale)
    roof = measured_roof(job.device, sizes.rounds)
    job.report.figures({"copy_gbps": roof, "rounds": sizes.rounds})
    for name in job.cases:
        with job.report.case(name):
            measure_case(makers[name](), job.device, roof, sizes.rounds,
                         lambda figures, name=name: job.report.figures({"kernels": {name: figures}}),  # type: ignore[misc]
                         LEFT_OUT.get(name, {}))
        forget()


def checked(job: Job) -> None:
    """Each operation once; compute-sanitizer watches."""
    makers = kernel_cases(job.device, job.sizes.checked)
    for name in job.cases:
        with job.report.case(name):
            makers[name]().calls[OURS]()
            _wait(job.device)
            job.report.figures({"checked": {name: True}})


def steps(name: str) -> Callable[[Job], None]:
    """Steps of a shape at stage 0 in bf16: ours alone, then each other way in turn with ours."""
    def measure(job: Job) -> None:
        shape = job.sizes.shapes[name].on(job.device).with_batch(job.sizes.micro_batch[name])
        batches, manifest, texts = drawn_steps(shape, (shape.data.max_tokens,) * 2, job.sizes.steps)
        ours: OurSteps | None = None
        with job.report.case(OURS) if OURS in job.cases else nullcontext():
            ours, shape, refused = _working(shape, manifest, batches)
            attention = picked_attention(shape, job.device)
            job.report.figures(
                {"texts": texts, "attention": str(attention), "compile": shape.model.compile, "left_out": refused})
            if OURS in job.cases:
                job.report.figures(alone_figures(shape, manifest, batches, ours, job.sizes.step_rounds))
                _profile(job, ours)
        if ours is None:
            raise SystemExit(f"gpu_session: the steps of {name} do not run: nothing can stand beside them")
        for way in job.cases:
            if way != OURS:
                with job.report.case(way):
                    _beside(job, shape, manifest, batches, ours, way, attention.name)
                _let_go(job.device)

    return measure


def _profile(job: Job, ours: OurSteps) -> None:
    """Where the time of a step goes; a profiler that cannot run here is a line."""
    try:
        job.report.figures({"profile": profile_steps(ours, job.device, 1)})
    except Exception as error:
        job.report.figures({"left_out": {"profile": reason(error)}})
        if device_is_lost():
            raise


def _working(shape: Shape, manifest: Manifest, batches: Sequence[Batch]) -> tuple[OurSteps, Shape, dict[str, str]]:
    """Our steps, with one taken; eager where they do not compile, and then why.

    Raises:
        Exception: neither runs.
    """
    try:
        ours = our_steps(shape, manifest, batches)
        ours()
    except Exception as error:
        if not shape.model.compile or device_is_lost():
            raise
        eager = replace(shape, model=replace(shape.model, compile=False))
        ours = our_steps(eager, manifest, batches)
        ours()
        return ours, eager, {"ours-compiled": reason(error)}
    return ours, shape, {}


def _beside(
    job: Job, shape: Shape, manifest: Manifest, batches: Sequence[Batch], ours: OurSteps, way: str, attention: str
) -> None:
    """Time another way in turn with ours, or say what it lacks."""
    lacking = f"{package} is not installed" if (package := missing_package(way)) else ""
    if way == f"ours-{attention}" or way == ("ours-compiled" if shape.model.compile else "ours-eager"):
        lacking = "that is ours"
    if lacking:
        job.report.figures({"left_out": {way: lacking}})
        return
    try:
        other = other_ways(shape, manifest, batches, ours, [way])[way]
        timings = time_alternating({OURS: ours, way: other}, job.device, job.sizes.step_rounds)
    except Exception as error:  # of what ours is compared with: a line
        job.report.figures({"left_out": {way: reason(error)}})
        if device_is_lost():
            raise
        return
    ratio = timings[way].median_ms / timings[OURS].median_ms
    job.report.figures({"ways": {way: way_figures(timings[way], len(ours.groups), ratio)}})


def loop(job: Job) -> None:
    """The loop under DeepSpeed from a store of drawn features, beside its own step."""
    from kaleido_fast.bench.session.drawn_store import loop_from_drawn_store

    assert job.load_config is not None
    sizes = job.sizes
    loop_from_drawn_store(job.load_config(), job.device, sizes.stored_samples, sizes.loop_steps, sizes.micro_batch["base"],
                          job.report.figures)


def catalogue(tool: str) -> Callable[[Job], None]:
    """The loader alone or the whole loop, from the store and from photographs of a catalogue."""
    def measure(job: Job) -> None:
        from kaleido_fast.bench.catalogue import loop_figures

        assert job.load_config is not None
        job.report.figures(loop_figures(job.load_config(), tool, job.device, job.shards))

    return measure


def _let_go(device: torch.device) -> None:
    """Of the memory of a way that has been timed."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


WORK: dict[str, Callable[[Job], None]] = {
    "environment": environment, "kernels": kernels, "sanitizer": checked, "racecheck": checked, "loop": loop,
    "loader": catalogue("loader"), "end-to-end": catalogue("end-to-end"), "baselines-base": steps("base"),
    **{f"step-{name}": steps(name) for name in SHAPES if name != "demo"},
}
