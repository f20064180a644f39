"""The second worker of a machine decodes, uploads and computes on its second card, whatever the verb."""

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from kaleido_fast.alignment.align import align
from kaleido_fast.alignment.evaluate import evaluate_alignments
from kaleido_fast.bench.loop import bench_loader
from kaleido_fast.config import load_align_config, load_run_config
from kaleido_fast.data.batches import dali, from_photographs, from_store
from kaleido_fast.loading import device_named
from kaleido_fast.parity.run import check_parity
from kaleido_fast.tasks.evaluate import evaluate_run
from kaleido_fast.training import keyed_step
from kaleido_fast.training.pretrain import pretrain
from kaleido_fast.training.stores.encode import encode
from kaleido_fast.training.workers.group import start_workers
from tests.alignment.small_align import config_of as captioner_of
from tests.alignment.test_captioner_training import finish
from tests.places import REPO
from tests.small import small_config

CARD = torch.device("cuda", 1)


class Opened(Exception):
    """DALI, or the upload of stored rows, was opened on this device."""


@pytest.fixture(scope="module")
def runs(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pre-training, its store and a captioner, made on the CPU."""
    folder = tmp_path_factory.mktemp("runs")
    config = small_config(tiny_shards, folder / "run", "train.steps=1", f"data.store={folder / 'store'}")
    assert encode(config) == 0 and pretrain(config) == 0
    finish(captioner_of(tiny_shards, folder / "aligned"))
    return folder


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch, runs: Path) -> list[torch.device]:
    """This is the second worker of a machine with two cards, which nothing reaches; where modules were sent, and
    what was asked about."""
    start_workers("cpu", 60)
    monkeypatch.setenv("LOCAL_RANK", "1")
    current, sent = [0], list[torch.device]()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: current.__setitem__(0, device))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current[0])

    def properties(device: torch.device) -> Any:
        sent.append(device)
        return SimpleNamespace(name="a card", major=0, minor=0, multi_processor_count=1)

    def to(self: nn.Module, device: torch.device) -> nn.Module:
        sent.append(torch.device(device))
        return self

    class Decoder:
        def __init__(self, source: Any, batch_size: int, image_size: int, device: torch.device, *_: Any) -> None:
            raise Opened(device)

    class NoUpload:
        def __init__(self, device: torch.device) -> None:
            sent.append(device)

    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    monkeypatch.setattr(nn.Module, "to", to)
    monkeypatch.setattr(dali, "SquareDecoder", Decoder)
    for module in (from_photographs, keyed_step):
        monkeypatch.setattr(module, "Upload", NoUpload)
    return sent


def on_cuda(runs: Path, shards: Path, *more: str) -> Any:
    return small_config(shards, runs / "new", "run.device=cuda", "train.steps=1", "model.attention=sdpa", *more)


def align_eval(runs: Path, shards: Path) -> None:
    config = load_align_config(runs / "aligned", [f"data.shards={shards}", "run.device=cuda"], needs_shards=True)
    evaluate_alignments(runs / "aligned", config, shards.parent / "catalogue" / "truth.jsonl")


VERBS: dict[str, Callable[[Path, Path], Any]] = {
    "encode": lambda runs, shards: encode(on_cuda(runs, shards, f"data.store={runs / 'other'}")),
    "pretrain": lambda runs, shards: pretrain(on_cuda(runs, shards)),
    "evaluate": lambda runs, shards: evaluate_run(
        runs / "run", load_run_config(runs / "run", ["run.device=cuda", "model.attention=sdpa"], needs_shards=True)),
    "align": lambda runs, shards: align(captioner_of(shards, runs / "captioner", "run.device=cuda")),
    "align-eval": align_eval,
    "bench loader": lambda runs, shards: bench_loader(on_cuda(runs, shards), 1),
    "parity": lambda runs, shards: check_parity(on_cuda(runs, shards, "model.dropout=0")),
}


@pytest.mark.parametrize("verb", VERBS)
def test_photographs_are_decoded_there(verb: str, runs: Path, tiny_shards: Path, second: list[torch.device]) -> None:
    with pytest.raises(Opened) as opened:
        VERBS[verb](runs, tiny_shards)
    assert opened.value.args == (CARD,)
    assert second and {device for device in second if device.type == "cuda"} == {CARD}  # DeepSpeed here knows a CPU alone


def test_stored_rows_are_uploaded_there(
    runs: Path, tiny_shards: Path, second: list[torch.device], monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(device: torch.device) -> None:
        raise Opened(device)

    monkeypatch.setattr(from_store, "Upload", opened)
    with pytest.raises(Opened) as where:
        pretrain(on_cuda(runs, tiny_shards, "model.features=stored", f"data.store={runs / 'store'}", f"run.out={runs / 'b'}"))
    assert where.value.args == (CARD,) and {device for device in second if device.type == "cuda"} == {CARD}


@pytest.mark.parametrize(("name", "card"), [("cuda", 1), ("cuda:0", 0), ("cuda:1", 1)])
def test_the_api_takes_the_current_card(second: list[torch.device], name: str, card: int) -> None:
    torch.cuda.set_device(1)
    assert device_named(name) == torch.device("cuda", card)


def test_nothing_makes_a_device_of_the_settings_by_itself() -> None:
    """`cuda` is a card once the worker's own is the current one, which `own_device` makes it. A shape is none: `estimate`
    follows a GPU's step on machines without one."""
    makes = re.compile(r"torch\.device\([^()]*run\.device\)|\.to\([^()]*run\.device\)")
    package = REPO / "kaleido_fast"
    assert {str(file.relative_to(package)) for file in package.rglob("*.py") if makes.search(file.read_text("utf-8"))} == {
        "bench/step_shape.py"}
