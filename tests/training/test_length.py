"""A run in minutes leaves room for what it does beside its steps."""

import pytest

from kaleido_fast.training import length
from kaleido_fast.training.length import RunLength
from kaleido_fast.training.settings import MEASURED_STEPS, TrainSettings


def _estimate(monkeypatch: pytest.MonkeyPatch, mined_an_epoch: float) -> int:
    """Steps of a run of 10 minutes, one a second, of 64 samples, on 1,000 samples an epoch, with hardly a validation."""
    clock = [0.0]
    monkeypatch.setattr(length.time, "perf_counter", lambda: clock[0])
    train = TrainSettings(minutes=10, validation_samples=1, validate_every=10**6)
    run = RunLength(train, 64, 1000, mined_an_epoch=mined_an_epoch)
    for step in range(1, MEASURED_STEPS):
        clock[0] = float(step)
        assert run.tick(step) is None
    clock[0] = float(MEASURED_STEPS)
    estimate = run.tick(MEASURED_STEPS)
    assert estimate is not None
    return estimate


def test_mining_takes_its_part_of_the_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    """600 products an epoch of 1,000 samples, each a sixth of a sample's step: a tenth of the time."""
    assert _estimate(monkeypatch, 0) in (599, 600)
    left = 600 - MEASURED_STEPS
    assert _estimate(monkeypatch, 600) == MEASURED_STEPS + int(left / 1.1)
