"""Memory of training steps as `kaleido-fast estimate` computes it beside what DeepSpeed's steps take in processes of their own.

    python benchmarks/estimate_memory.py        # writes benchmarks/results/estimate-cpu.json; Linux, no GPU, minutes

Measured is the peak of a process over what it held before the model. The same steps run once before, so that what libraries
keep once and for all, such as the code that oneDNN builds a shape, is in the baseline.
"""

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kaleido_fast.bench.batches import noise_batch
from kaleido_fast.bench.environment import describe_environment
from kaleido_fast.bench.step_shape import Shape
from kaleido_fast.bench.worker_memory import worker_memory
from kaleido_fast.config import load_config
from kaleido_fast.data.shards.manifest import Vocabulary
from kaleido_fast.files import replace_text
from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from kaleido_fast.model.kaleido_tasks import plan_rules
from kaleido_fast.model.settings import VocabularySettings
from kaleido_fast.parity.drawn_batch import bert_vocabulary
from kaleido_fast.process_memory import forget_peak, peak_resident_bytes, resident_bytes
from kaleido_fast.training.engine import Engine
from kaleido_fast.training.frozen_state import leave_out_encoder
from kaleido_fast.training.step import PretrainStep
from kaleido_fast.training.workers.group import Workers, start_workers

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "estimate-cpu.json"
BOUND = 0.10  # of the measured growth
WORDS = {"demo": 4000, "minilm": 30522}
LIMIT_S = 600.0
STEPS = 4
# Environment of a process whose tensors each have pages of their own that go back when it goes: glibc's malloc otherwise keeps
# a heap with gaps, so that what is held is not what is resident.
OWN_PAGES = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
CASES: tuple[tuple[str, int, tuple[str, ...]], ...] = (  # config, workers, settings
    ("demo", 1, ()),
    ("demo", 1, ("train.micro_batch=64", "model.dropout=0.1")),
    ("demo", 1, ("model.features=stored",)),
    ("demo", 1, ("train.precision=bf16",)),
    ("demo", 1, ("train.zero_stage=2", "train.accumulation=2")),
    ("minilm", 1, ()),
    ("minilm", 1, ("train.micro_batch=16", "train.itc_block=16", "model.features=stored")),
    ("minilm", 1, ("train.precision=bf16",)),
    ("minilm", 1, ("train.zero_stage=1",)),
    ("minilm", 1, ("train.zero_stage=1", "train.precision=bf16")),
    ("minilm", 1, ("train.zero_stage=2", "train.precision=bf16", "model.features=stored")),
    ("minilm", 1, ("train.zero_stage=3",)),
    ("minilm", 1, ("train.zero_stage=3", "train.precision=bf16")),
    ("minilm", 2, ("train.micro_batch=32",)),
    ("minilm", 2, ("train.micro_batch=32", "train.zero_stage=2")),
    ("minilm", 2, ("train.micro_batch=32", "train.zero_stage=3", "train.precision=bf16")),
)


def measure_here(name: str, settings: Sequence[str]) -> dict[str, Any]:
    """One case in this process, which is one of its workers; growths are of the worker that grew most."""
    config = load_config(ROOT / "configs" / f"{name}.yaml", settings)
    workers = start_workers("cpu", LIMIT_S)
    shape, words = Shape.of(config), bert_vocabulary(WORDS[name])
    lengths = np.full(config.train.micro_batch, config.data.max_tokens, np.int32)
    grown = max(workers.from_all(grown_bytes(shape, words, lengths, workers)))
    expected = worker_memory(shape, words, lengths, workers.count)
    return {"config": name, "workers": workers.count, "settings": list(settings), "estimated_bytes": expected.peak,
            "measured_bytes": grown, "error": expected.peak / grown - 1, "parts": expected.parts}


def measure(name: str, workers: int, settings: Sequence[str], environment: dict[str, str]) -> dict[str, Any]:
    """One case in processes of its own."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(workers)] if workers > 1 else []
    command = [sys.executable, *launcher, str(Path(__file__).resolve()), "--one", name, *settings]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, env={**os.environ, **environment})
    if done.returncode:
        raise ValueError(f"{name} {' '.join(settings)}: exit code {done.returncode}: {done.stderr[-1000:]}")
    return next(json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"config"'))


def grown_bytes(shape: Shape, words: Vocabulary, lengths: np.ndarray, workers: Workers) -> int:
    """Peak resident memory of this process over its memory before, training on (B,) `lengths` of text tokens."""
    _train(shape, words, lengths, workers)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    forget_peak()
    before = resident_bytes()
    _train(shape, words, lengths, workers)
    return peak_resident_bytes() - before


def _train(shape: Shape, words: Vocabulary, lengths: np.ndarray, workers: Workers) -> None:
    """Some optimizer steps under DeepSpeed."""
    batch, train = noise_batch(shape, words, lengths), shape.train
    torch.manual_seed(0)
    vocabulary = VocabularySettings(words.size, words.padded_size)
    model = KaleidoBertModel(shape.model, shape.kaleido, vocabulary, shape.data.image_size)
    rules = plan_rules(shape.kaleido, mask_id=words.mask_id, ordinary_first=words.ordinary_first,
                       ordinary_last=words.ordinary_last)
    step = PretrainStep(model, rules, 0, train.task_weights, train.losses_on_mismatched, shape.reference,
                        train.itc_block if train.contrasts else 0)
    leave_out_encoder(step, model)
    engine = Engine(step, train, shape.run, workers.count)
    rows = step.count(batch)
    for number in range(STEPS):
        for _ in range(train.accumulation):
            result = engine(batch, rows, rows, torch.tensor([0, number, workers.rank]))
            engine.backward(result.loss)
            engine.step(1e-4)
    engine.destroy()


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1 where an estimate is past the bound, 2 where a case cannot be measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one", nargs="+", metavar="CONFIG key=value", help="one case here, printed as JSON")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    try:
        if options.one:
            row, workers = measure_here(options.one[0], options.one[1:]), start_workers("cpu", LIMIT_S)
            if workers.is_first:
                print(json.dumps(row))
            return 0
        rows = []
        for name, processes, settings in CASES:
            rows.append(measure(name, processes, settings, OWN_PAGES))
            if processes == 1 and not settings:  # what glibc's heap adds
                rows[-1]["measured_by_default_bytes"] = measure(name, processes, settings, {})["measured_bytes"]
            print(f"{name}, {processes} workers, {' '.join(settings) or 'as it is'}: {rows[-1]['error']:+.1%}", flush=True)
        found = {"bound": BOUND, "environment": describe_environment(torch.device("cpu")), "cases": rows}
        replace_text(options.out, json.dumps(found, indent=1) + "\n")
    except ValueError as error:
        print(f"estimate_memory: {error}", file=sys.stderr)
        return 2
    return int(any(abs(row["error"]) > BOUND for row in rows))


if __name__ == "__main__":
    sys.exit(main())
