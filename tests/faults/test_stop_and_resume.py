"""A run that is stopped or killed and resumed repeats an undisturbed one, loss for loss, bit for bit, on one, two and three
workers; between numbers of workers it sees every sample once.

Real processes are killed at random steps: by SIGTERM (which saves) and by SIGKILL (which leaves the last checkpoint).
"""

import itertools
import random
import signal
from pathlib import Path

import numpy as np
import pytest

from kaleido_fast.data.batches.stream import sample_order
from kaleido_fast.data.shards.split import Split
from kaleido_fast.training.progress import DIGEST_BITS, samples_digest
from tests.faults import runs

pytestmark = pytest.mark.slow
STEPS = 24
# log_every does not divide checkpoint_every: a log line then spans a stop.
SETTINGS = [f"train.steps={STEPS}", "train.log_every=2", "train.checkpoint_every=5", "train.validate_every=9",
            "model.dropout=0.1"]
KEYS = ("step", "samples", "digest", "losses", "accuracy", "grad_norm", "learning_rate", "validation")


def _trajectory(out: Path) -> list[dict]:
    return [{key: line.get(key) for key in KEYS} for line in runs.lines(out)]


@pytest.mark.parametrize(("workers", "kills"), [
    (1, [(signal.SIGTERM, "all"), (signal.SIGKILL, "all")]),
    (2, [(signal.SIGKILL, "one"), (signal.SIGTERM, "one")]),
    (3, [(signal.SIGTERM, "launcher"), (signal.SIGKILL, "all")]),
])
def test_killed_twice_at_random_steps_and_resumed(workers: int, kills: list, tiny_shards: Path, tmp_path: Path) -> None:
    runs.finish(workers, tiny_shards, tmp_path / "undisturbed", *SETTINGS)
    out, resume = tmp_path / "run", []
    for how, whom in kills:
        runs.kill(workers, tiny_shards, out, *SETTINGS, *resume, how=how, whom=whom, at=runs.last_step(out) + _random(1, 7))
        resume = ["--resume", "auto"]
    runs.finish(workers, tiny_shards, out, *SETTINGS, *resume)
    assert _trajectory(out) == _trajectory(tmp_path / "undisturbed")


def test_killed_and_resumed_on_other_numbers_of_workers(tiny_shards: Path, tmp_path: Path) -> None:
    """The same command on 2, 3, 1 workers: the batch changes with them, the samples follow each other all the same."""
    out, settings = tmp_path / "run", [*SETTINGS, "train.log_every=1", "train.zero_stage=2"]
    runs.kill(2, tiny_shards, out, *settings, how=signal.SIGKILL, whom="one", at=_random(6, 9))
    runs.kill(3, tiny_shards, out, *settings, "--resume", "auto", how=signal.SIGTERM, whom="one", at=_random(10, 12))
    said = runs.finish(1, tiny_shards, out, *settings, "--resume", "auto").stderr
    assert f"{out}: goes on with 16 samples a step, it began with 32; train.micro_batch and train.accumulation" in said
    lines = [line for line in runs.lines(out) if "losses" in line]
    assert {b["samples"] - a["samples"] for a, b in itertools.pairwise(lines)} == {16, 32, 48}
    assert lines[-1]["samples"] == STEPS * 32  # the length of the run that two workers began
    _assert_every_sample_once(lines, tiny_shards)


def _assert_every_sample_once(lines: list[dict], shards: Path) -> None:
    """The digests of what each step was fed are those of the stream's samples, step after step from the first."""
    split, begin = Split.open(shards, "train"), 0
    seen = []
    for line in lines:
        samples, _ = sample_order(np.arange(begin, line["samples"]), split.num_samples, seed=0)
        assert int(line["digest"], 16) == samples_digest(split.rows(samples)["key"]) % (1 << DIGEST_BITS), line["step"]
        begin = line["samples"]
        seen.extend(samples.tolist())
    epochs = len(seen) // split.num_samples
    assert epochs >= 2
    for epoch in range(epochs):
        part = seen[epoch * split.num_samples : (epoch + 1) * split.num_samples]
        assert sorted(part) == list(range(split.num_samples))


def _random(first: int, last: int) -> int:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    return random.Random(seed).randrange(first, last)
