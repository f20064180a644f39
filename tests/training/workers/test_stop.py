"""The first signal asks; the same one passed on by a launcher is no second."""

import signal

import pytest

from kaleido_fast.training.workers import stop
from kaleido_fast.training.workers.stop import StopRequest


def test_a_signal_passed_on_is_the_same_request() -> None:
    request = StopRequest()
    try:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert request.signal == signal.SIGINT
    finally:
        request.release()


def test_a_later_one_acts_as_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stop, "SAME_S", -1.0)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job begins with it ignored
    request = StopRequest()
    try:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        request.release()
        signal.signal(signal.SIGINT, before)
