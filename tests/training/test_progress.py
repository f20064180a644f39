"""Where a run stands when the batch of a step changes, and what a digest of samples says."""

import numpy as np
import pytest

from kaleido_fast.training.progress import Progress, samples_digest


def test_a_run_ends_at_the_same_sample_whatever_the_batch() -> None:
    progress = Progress(total_steps=10, batch=32)
    for _ in range(4):
        progress.advance(32, 0)
    assert progress.last_step(32) == 10 and progress.last_step(16) == 16 and progress.last_step(48) == 8
    while not progress.is_done:
        before = progress.schedule_step
        progress.advance(48, 0)
        assert progress.schedule_step == pytest.approx(before + 1.5)
    assert (progress.step, progress.position) == (8, 320)


def test_steps_are_whole_while_the_batch_is_the_first() -> None:
    progress = Progress(total_steps=7, batch=48)
    steps = []
    while not progress.is_done:
        steps.append(progress.schedule_step)
        progress.advance(48, 0)
    assert steps == list(range(7))


def test_a_measured_length_is_the_inverse_of_the_last_step() -> None:
    progress = Progress(step=20, position=640, batch=32)
    assert progress.last_step(32) is None and not progress.is_done
    progress.set_last_step(100, 32)
    assert progress.total_steps == 100 and progress.last_step(32) == 100
    progress.set_last_step(100, 16)
    assert progress.last_step(16) == 100


def test_a_digest_knows_samples_not_their_order() -> None:
    keys = np.random.default_rng(0).integers(0, 2**64, 64, dtype=np.uint64)
    whole = samples_digest(keys)
    parts = sum(samples_digest(part) for part in np.split(np.random.default_rng(1).permutation(keys), 4))
    progress = Progress(batch=64)
    progress.advance(64, parts)
    assert progress.take_digest() == f"{whole:010x}" and progress.take_digest() == "0" * 10
    assert samples_digest(np.append(keys[1:], keys[1])) != whole


def test_a_state_restores_itself() -> None:
    progress = Progress(3, 96, 9, 32, "f", 7, {"sums": {"itm": 0.5}})
    assert Progress.restore(progress.as_state()) == progress
