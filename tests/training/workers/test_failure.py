"""What a worker says of another that failed: its reason, or that it is gone and how the work goes on."""

import pytest
import torch.distributed as dist

from kaleido_fast.options import RESUME, OptionError
from kaleido_fast.training.workers import failure
from kaleido_fast.training.workers.failure import FAILED, run_together
from kaleido_fast.training.workers.group import Workers


@pytest.fixture(autouse=True)
def _stays_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    """The group of this process serves other tests too, and DeepSpeed keeps what it made of it."""
    monkeypatch.setattr(failure, "_part", lambda: None)


def fails(error: Exception) -> int:
    raise error


def said_of(lost: str, store: dist.Store, *how) -> str:
    """What the first of two workers says, as the command line shows it, where a collective failed with the text `lost`."""
    with pytest.raises(OptionError) as met:
        run_together(Workers(0, 2, store=store), lambda: fails(RuntimeError(lost)), 9, *how)
    return met.value.with_flags()


@pytest.mark.parametrize(("how", "advice"), [(("with ", RESUME), "with --resume auto"), (("by the same command",),) * 2])
def test_how_the_work_goes_on_is_said(how: tuple, advice: str | tuple) -> None:
    advice = advice if isinstance(advice, str) else advice[0]
    gone = said_of("Connection closed by peer", dist.HashStore(), *how)
    assert gone == f"another worker was lost (killed, or its machine failed); go on {advice}"
    late = said_of("Timed out waiting", dist.HashStore(), *how)
    assert late == f"another worker gave no answer within run.timeout_s=9 s; see its machine, then go on {advice}"


def test_a_reason_keeps_its_options() -> None:
    store = dist.HashStore()
    full = OptionError("metrics.jsonl: cannot be written: disk full; make room, then go on with ", RESUME)
    assert run_together(Workers(1, 2, store=store), lambda: fails(full), 9, "by the same command") == FAILED
    assert said_of("Connection closed by peer", store, "by the same command") == (
        "worker 1: metrics.jsonl: cannot be written: disk full; make room, then go on with --resume auto")
