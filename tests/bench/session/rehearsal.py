"""gpu_session.py on a CPU, at small sizes: every part is started, ended and written as it will be on a GPU machine.

The kernels go through Triton's own launch path for sm_90 and are compiled, and run nowhere; steps and the loop are those of a
CPU. As `python -m tests.bench.session.rehearsal`, with the arguments of gpu_session.py.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from kaleido_fast.bench.kernel_cases import Scale
from kaleido_fast.bench.ptx.driver import emulated
from kaleido_fast.bench.session import program
from kaleido_fast.bench.session.parts import make_parts
from kaleido_fast.bench.session.runner import Part
from kaleido_fast.bench.session.work import ODD, Sizes
from kaleido_fast.bench.step_shape import SHAPES, Shape

SMALL = Scale(samples=16, image_size=60, patch_size=12, hidden=64, rows=32, features=64)
LOOP = ("data.image_size=60", "kaleido.patch_size=17", "model.hidden=32", "model.layers=1", "model.heads=2",
        "model.intermediate=64", "train.precision=fp32", "data.max_tokens=24")
LAUNCHING = ("kernels", "sanitizer", "racecheck")  # parts whose operators go to Triton


def small(shape: Shape) -> Shape:
    """With patches that a CPU encodes in no time."""
    encoder = {} if shape.model.features == "stored" else {"patch_encoder": "dct", "patch_encoder_weights": ""}
    return replace(shape, kaleido=replace(shape.kaleido, patch_size=17), data=replace(shape.data, image_size=60, max_tokens=24),
                   model=replace(shape.model, hidden=24, layers=1, heads=2, intermediate=32, **encoder))


def load_config() -> Any:
    from kaleido_fast.config import load_config

    def load(path: Path, more: Sequence[str]) -> Any:
        return load_config(path, [*more, *LOOP])

    return load


def launch_from_cpu_tensors() -> None:
    """Let a CPU's operators call what a GPU's call."""
    from kaleido_fast.kernels import cut, embed, plan, softmax_kl

    for operator, launch in (
        (plan._plan_op, plan._plan_cuda), (cut._cut_op, cut._cut_cuda),
        (softmax_kl._softmax_kl_op, softmax_kl._softmax_kl_cuda),
        (embed._embed_op, embed._embed_cuda), (embed._embed_backward_op, embed._embed_backward_cuda),
    ):
        operator.register_kernel("cpu")(launch)


def no_compiler(function: Any, **options: Any) -> Any:
    """torch.compile, broken: a baseline that fails."""
    def call(*inputs: Any, **named: Any) -> Any:
        raise RuntimeError("no compiler in a rehearsal")

    return call


def patient(entry: Path, options: Sequence[str] = ()) -> dict[str, Part]:
    """The parts with time for a machine that does much else."""
    parts = make_parts(entry, options)
    return {name: replace(part, limit_s=10 * part.limit_s, case_limit_s=10 * part.case_limit_s) for name, part in parts.items()}


def rehearse() -> int:
    sizes = Sizes(SMALL, replace(ODD, samples=16), rounds=2, step_rounds=1, steps=1, stored_samples=64, loop_steps=4,
                  micro_batch=dict.fromkeys(("base", "base_computed", "large"), 16),
                  shapes={name: small(shape) for name, shape in SHAPES.items()})
    program.make_parts = patient
    torch.compile = no_compiler  # type: ignore[assignment]
    return program.main(Path(__file__).resolve(), __doc__ or "", load_config, sizes=sizes, device=torch.device("cpu"))


if __name__ == "__main__":
    if {"--run-part", *LAUNCHING} & set(sys.argv[1:]) > {"--run-part"}:
        launch_from_cpu_tensors()
        with emulated(90, run=False):
            sys.exit(rehearse())
    sys.exit(rehearse())
