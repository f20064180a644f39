"""What the loop's benchmark notes beside its speed."""

from collections import Counter

import pytest
import torch

from kaleido_fast.bench.loop import _noting_waits


def test_waits_for_the_gpu_are_counted_by_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    waited, waits = list[object](), Counter[str]()
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    with _noting_waits(waits):
        torch.cuda.synchronize("cuda:0")
        torch.cuda.synchronize("cuda:0")
    torch.cuda.synchronize("cuda:1")
    assert waits == {"bench/test_loop.py": 2} and waited == ["cuda:0", "cuda:0", "cuda:1"]
