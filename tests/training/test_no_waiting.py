"""Nothing in the loop asks the device for a number, outside of what is logged, validated and saved."""

import contextlib
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kaleido_fast.training.loop import Loop
from kaleido_fast.training.pretrain import pretrain
from kaleido_fast.training.run.records import RunRecords
from kaleido_fast.training.stores.encode import encode
from kaleido_fast.training.telemetry import TaskMeter
from kaleido_fast.training.validation import PretrainValidation
from tests.small import small_config

FIVE_STEPS = ("train.steps=5", "train.warmup_steps=2", "model.dropout=0.1", "train.log_every=2", "train.validate_every=3")
ITC = ("model.itc_dim=16", "train.itc_block=16", "train.task_weights.itc=2")
# Operations whose result, or the shape of it, the host must know before it can go on.
WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "equal",
           "is_nonzero", "repeat_interleave", "lift_fresh", "lift_fresh_copy"}
# What works on the host by design: the loader's own part, the operators' references and the attention of a CPU.
ON_THE_HOST = (*(f"data/batches/{name}.py" for name in ("itm", "stream", "upload")), "data/store/photograph_store.py",
               "/kernels/", "model/attention/packed.py")
ALLOWED = ((Loop, "log"), (Loop, "save"), (PretrainValidation, "measure"), (RunRecords, "end"))


class Waits(TorchDispatchMode):
    """Where something was asked, while `on`."""

    def __init__(self) -> None:
        super().__init__()
        self.on, self.seen = True, []

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name = function._schema.name.removeprefix("aten::")
        by_mask = name == "index" and any(index is not None and index.dtype == torch.bool for index in args[1])
        if self.on and (name in WAITING or by_mask):
            self.note(name, [frame for frame in traceback.extract_stack() if "torch/" not in frame.filename][-2])
        return function(*args, **kwargs or {})

    def note(self, name: str, frame: traceback.FrameSummary) -> None:
        if self.on and not any(part in frame.filename for part in ON_THE_HOST):
            self.seen.append(f"{name} in {frame.filename}:{frame.lineno}: {frame.line}")

    @contextlib.contextmanager
    def off(self) -> Iterator[None]:
        self.on = False
        try:
            yield
        finally:
            self.on = True


def waits_of(config: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    waits = Waits()

    def allowed(method: Callable[..., Any]) -> Callable[..., Any]:
        def run(*inputs: Any) -> Any:
            with waits.off():
                return method(*inputs)
        return run

    for owner, name in ALLOWED:
        monkeypatch.setattr(owner, name, allowed(getattr(owner, name)))
    run, called = Loop.run, []

    def watched(self: Any) -> int:
        called.append(1)
        with waits:
            return run(self)

    monkeypatch.setattr(Loop, "run", watched)
    for name in ("tolist", "numpy", "__array__"):  # these never reach the dispatcher
        inner = getattr(Tensor, name)

        def noted(self: Tensor, *inputs: Any, inner: Any = inner, name: str = name, **options: Any) -> Any:
            if called:
                waits.note(name, traceback.extract_stack()[-2])
            return inner(self, *inputs, **options)

        monkeypatch.setattr(Tensor, name, noted)
    assert pretrain(config) == 0 and called
    return waits.seen


@pytest.mark.parametrize(("features", "more"), [("computed", ()), ("stored", ()), ("computed", ITC), ("stored", ITC)])
def test_no_step_waits(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, features: str, more: tuple[str, ...]
) -> None:
    config = small_config(tiny_shards, tmp_path / "run", *FIVE_STEPS, "data.alignment=truth",
                          f"data.store={tmp_path / 'store'}", f"model.features={features}", *more)
    if features == "stored":
        encode(config)
    assert waits_of(config, monkeypatch) == []


@pytest.mark.parametrize(("asking", "name"), [
    (lambda result: float(result.loss), "_local_scalar_dense"), (lambda result: bool(result.loss > 0), "_local_scalar_dense"),
    (lambda result: result.loss.reshape(1)[result.loss.reshape(1) > 0], "index"),
    (lambda result: result.loss.tolist(), "tolist"), (lambda result: result.loss.new_zeros(3)[[0, 1]], "lift_fresh"),
    (lambda result: (result.loss > 0).nonzero(), "nonzero"),
])
def test_a_step_that_asks_is_caught(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asking: Callable[[Any], Any], name: str
) -> None:
    add = TaskMeter.add
    monkeypatch.setattr(TaskMeter, "add", lambda self, result, rows: (asking(result), add(self, result, rows))[1])
    config = small_config(tiny_shards, tmp_path / "run", *FIVE_STEPS, "train.steps=1")
    assert any(wait.startswith(f"{name} in ") for wait in waits_of(config, monkeypatch))


@pytest.mark.gpu
@pytest.mark.parametrize("more", [
    [], ["model.features=stored"], ["model.attention=varlen", "train.precision=bf16"],
    ["model.attention=varlen", "train.precision=bf16", "model.compile=true"],
])
def test_no_step_waits_on_a_gpu(tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: list[str]) -> None:
    """Stage 0: from stage 1 on DeepSpeed waits for its check for overflow. The first step builds kernels and state."""
    config = small_config(tiny_shards, tmp_path / "run", *FIVE_STEPS, "run.device=cuda", f"data.store={tmp_path / 'store'}",
                          "model.hidden=64", *more)
    if config.model.features == "stored":
        encode(config)

    def mode(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def run(self: Any, *inputs: Any) -> Any:
            torch.cuda.set_sync_debug_mode(name if self.progress.step else "default")
            try:
                return method(self, *inputs)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        return run

    for name in ("_step", "plan_length"):
        monkeypatch.setattr(Loop, name, mode("error", getattr(Loop, name)))
    assert pretrain(config) == 0
