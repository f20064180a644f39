"""`kaleido-fast bench step|loader|end-to-end`: from the command line's arguments to figures and words."""

import argparse
from typing import Any

import torch

from kaleido_fast.bench.step_shape import Shape
from kaleido_fast.bench.training_steps import OPTIMIZER_STEPS, Measuring, bench_steps, drawn_steps
from kaleido_fast.bench.training_table import end_to_end_text, loader_text, steps_text
from kaleido_fast.bench.training_ways import check_ways
from kaleido_fast.options import Option, OptionError
from kaleido_fast.training.build import picked_attention
from kaleido_fast.training.settings import RunConfig
from kaleido_fast.training.workers.group import own_device


def bench_training(config: RunConfig, options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """What `options.tool` measures, in words and as plain values.

    Raises:
        ValueError: arguments, shards, stores or devices that cannot be used.
    """
    if options.steps < 1:
        raise OptionError(f"bench {options.tool}: ", Option("steps"), f"={options.steps} must be at least 1")
    if config.run.device == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"bench {options.tool}: run.device=cuda, but no CUDA device was found; for a CPU set run.device=cpu "
                         "model.attention=auto train.precision=fp32")
    if options.tool == "step":
        figures = _steps(config, options)
        return steps_text(figures), figures
    if not config.data.shards:
        raise ValueError(f"bench {options.tool}: data.shards: not given; name the folder that 'kaleido-fast prepare' wrote")
    from kaleido_fast.bench.loop import bench_end_to_end, bench_loader  # DeepSpeed

    if options.tool == "loader":
        figures = bench_loader(config, options.steps)
        return loader_text(figures), figures
    figures = bench_end_to_end(config, options.steps)
    return end_to_end_text(figures), figures


def _steps(config: RunConfig, options: argparse.Namespace) -> dict[str, Any]:
    check_ways(options.against)
    kernels = {"attention": picked_attention(config, own_device(config.run.device)).kernels}
    held = min(OPTIMIZER_STEPS, options.steps)
    measuring = Measuring(max(1, options.steps // held), tuple(options.against), options.tflops)
    if not config.data.shards:
        shape = Shape.of(config)
        batches, manifest, source = drawn_steps(shape, read_lengths(options.lengths), held)
        return kernels | {"texts": source} | bench_steps(shape, manifest, batches, measuring)
    if options.lengths:
        raise OptionError("bench step: ", Option("lengths"), f"={options.lengths} is for drawn texts, found data.shards="
                          f"{config.data.shards}; leave one out")
    from kaleido_fast.bench.loop import bench_loader_steps

    return kernels | bench_loader_steps(config, held, measuring)


def read_lengths(text: str | None) -> tuple[int, int] | None:
    """'12-16' or '64'. Raises ValueError for anything else."""
    if text is None:
        return None
    low, _, high = text.partition("-")
    if not low.isdecimal() or not (high or low).isdecimal():
        raise OptionError("bench step: ", Option("lengths"), f"={text}: expected a number of tokens such as 64, or two such "
                          "as 12-16")
    return int(low), int(high or low)
