"""The compiled encoder: as many graphs as there are modes, whatever the lengths, and the eager encoder's numbers."""

import dataclasses
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from kaleido_fast.model import encoder as module
from kaleido_fast.model.encoder import Encoder
from kaleido_fast.model.settings import ModelSettings

SETTINGS = ModelSettings(hidden=32, layers=3, heads=4, intermediate=40, dropout=0.1, attention="sdpa")


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No graph from another test; the graphs are run as they were traced, without a C++ compiler."""
    torch.compiler.reset()
    counters.clear()
    monkeypatch.setattr(module, "BACKEND", "aot_eager")
    yield
    torch.compiler.reset()


def built(compiled: bool, settings: ModelSettings = SETTINGS) -> Encoder:
    torch.manual_seed(0)
    encoder = Encoder(settings)
    if compiled:
        encoder.compile_layers()
    return encoder


def run(encoder: Encoder, lengths: list[int], seed: int = 0) -> tuple[Tensor, list[Tensor]]:
    torch.manual_seed(seed)
    x = torch.randn(sum(lengths), 32, requires_grad=torch.is_grad_enabled())
    cumulative = torch.tensor([0, *lengths]).cumsum(0).int()
    out = encoder(x, cumulative, lengths)
    if not torch.is_grad_enabled():
        return out, []
    return out, list(torch.autograd.grad((out * torch.linspace(0, 1, 32)).sum(), [x, *encoder.parameters()]))


def drawn_lengths(count: int) -> Iterator[list[int]]:
    generator = torch.Generator().manual_seed(0)
    for number in range(count):
        samples = 16 if number % 3 else 5
        yield torch.randint(1, 30, (samples,), generator=generator).tolist()


def test_two_graphs_for_a_run(fresh: None) -> None:
    """One to train, one to validate, for all layers and twenty different batches of each."""
    encoder = built(compiled=True)
    for lengths in drawn_lengths(20):
        encoder.train()
        run(encoder, lengths)
        encoder.eval()
        with torch.no_grad():
            run(encoder, lengths)
    assert counters["stats"]["unique_graphs"] == 2
    assert not counters["graph_break"] and not counters["recompile_limit"]


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_equals_the_eager_encoder(fresh: None, dropout: float) -> None:
    """Dropout too: run as traced, the graph draws from torch's generator in the same order."""
    settings = dataclasses.replace(SETTINGS, dropout=dropout)
    eager, compiled = built(False, settings), built(True, settings)
    for lengths in drawn_lengths(3):
        (ours, our_gradients), (theirs, their_gradients) = run(compiled, lengths), run(eager, lengths)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
        for a, b in zip(our_gradients, their_gradients, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_under_autocast(fresh: None) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = (run(built(compiled), [7, 3, 20])[0] for compiled in (True, False))
    assert ours.dtype == theirs.dtype
    torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.05)
