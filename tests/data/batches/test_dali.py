"""What DALI is asked for: on which card, and on whose stream its outputs are ordered."""

from typing import Any

import numpy as np
import pytest
import torch

from kaleido_fast.data.batches import dali
from kaleido_fast.data.batches.dali import SquareDecoder
from kaleido_fast.data.batches.jpeg_batch import JpegBatch

SIZE = 4
BATCH = JpegBatch([b"one", b"two"], np.zeros((2, 2), np.int32), np.ones((2, 2), np.int32), np.zeros((2, 3), np.uint8))


class Outputs:
    """Squares that are all black."""

    def __init__(self, count: int) -> None:
        self._squares = torch.zeros(count, SIZE, SIZE, 3, dtype=torch.uint8)

    def as_tensor(self) -> torch.Tensor:
        return self._squares


class Recorded:
    """The pipelines that were built, and what each was run with."""

    def __init__(self) -> None:
        self.device_ids: list[Any] = []
        self.runs: list[tuple[Any, ...]] = []
        self.fails = False  # whether a batch of more than one photograph cannot be decoded

    def pipeline(self, source: Any, image_size: int, cuda: bool, *, batch_size: int, device_id: Any, **_: Any) -> "Pipeline":
        self.device_ids.append(device_id)
        return Pipeline(self, source, batch_size)


class Pipeline:
    """Asks its source as DALI does, and decodes nothing."""

    def __init__(self, recorded: Recorded, source: Any, batch_size: int) -> None:
        self._recorded, self._source, self._count, self._number = recorded, source, batch_size, 0

    def build(self) -> None:
        pass

    def run(self, *stream: Any) -> list[Outputs]:
        self._recorded.runs.append(stream)
        self._source(self._number)
        self._number += 1
        if self._recorded.fails and self._count > 1:
            raise RuntimeError("Failed to decode")
        return [Outputs(self._count)]


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    """A machine whose current card is the second one."""
    recorded = Recorded()
    monkeypatch.setattr(dali, "_squares", recorded.pipeline)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"torch's stream of {device}")
    return recorded


def decode(device: str) -> torch.Tensor:
    decoder = SquareDecoder(lambda number: (number, BATCH), 2, SIZE, torch.device(device), threads=1, prefetch=1)
    return next(iter(decoder)).squares


@pytest.mark.parametrize(("device", "card"), [("cuda:1", 1), ("cuda:0", 0), ("cuda", 1)])
def test_outputs_are_ordered_on_the_stream_of_torch(recorded: Recorded, device: str, card: int) -> None:
    decode(device)
    assert recorded.device_ids == [card] and recorded.runs == [(f"torch's stream of cuda:{card}",)]


def test_on_a_cpu_there_is_no_stream(recorded: Recorded) -> None:
    decode("cpu")
    assert recorded.device_ids == [None] and recorded.runs == [()]


def test_what_is_decoded_one_by_one_is_on_the_same_card_and_stream(recorded: Recorded) -> None:
    recorded.fails = True
    assert decode("cuda").shape == (2, SIZE, SIZE, 3)
    assert recorded.device_ids == [1, 1, 1] and recorded.runs == [("torch's stream of cuda:1",)] * 3
