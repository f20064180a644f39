"""drop_: every value's own word of Philox, reproducible, at the asked rate."""

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kaleido_fast.kernels.dropout import drop_
from kaleido_fast.kernels.philox import philox

KEY = torch.tensor([0x0123456789ABCDEF, 7, 3 * 65536 + 5])


def ones(rows: int, hidden: int, rate: float = 0.1, key: Tensor = KEY) -> Tensor:
    return drop_(torch.ones(rows, hidden, dtype=torch.float64), rate, key)


@pytest.mark.parametrize("rows, hidden, rate", [(1, 1, 0.5), (5, 7, 0.3), (33, 64, 0.1), (700, 101, 0.25)])
def test_each_value_is_decided_by_its_own_word(rows: int, hidden: int, rate: float) -> None:
    """The last shape is wider than one pass over the counters, and no row of it starts at a whole counter."""
    values = ones(rows, hidden, rate).flatten().tolist()
    generator = torch.Generator().manual_seed(0)
    ends = [0, len(values) - 1, min(65535, len(values) - 1), min(65536, len(values) - 1)]
    for e in ends + torch.randint(len(values), (60,), generator=generator).tolist():
        words = philox(0x89ABCDEF, 0x01234567, e // 4, 0, 7, 3 * 65536 + 5)
        expected = 0 if int(words[e % 4]) < round(rate * 2**32) else 1 / (1 - rate)
        assert values[e] == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9])
def test_the_share_dropped_is_the_rate(rate: float) -> None:
    dropped = ones(1000, 96, rate) == 0
    for values in (dropped, dropped[:500], dropped[:, ::4], dropped[:, 3::4]):  # words 0 and 3 alone too
        spread = (rate * (1 - rate) / values.numel()) ** 0.5
        assert abs(values.double().mean().item() - rate) < 5 * spread


def test_rows_and_columns_are_dropped_independently() -> None:
    dropped = (ones(1000, 96, 0.2) == 0).double()
    for other in (dropped.roll(1, 0), dropped.roll(1, 1), dropped.roll(4, 1)):
        assert abs((dropped * other).mean().item() - 0.04) < 5 * (0.04 * 0.96 / dropped.numel()) ** 0.5


def test_the_same_key_drops_the_same_and_each_part_of_it_counts() -> None:
    start = ones(20, 32)
    assert torch.equal(ones(20, 32), start)
    for part, step in ((0, 1), (0, 2**32), (1, 1), (2, 1)):
        changed = KEY.clone()
        changed[part] += step
        assert not torch.equal(ones(20, 32, key=changed), start)


def test_a_row_is_dropped_alike_however_many_follow() -> None:
    assert torch.equal(ones(700, 100)[:20], ones(20, 100))


def test_rate_zero_changes_and_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kaleido_fast.kernels.dropout.philox", None)
    assert torch.equal(ones(3, 4, rate=0.0), torch.ones(3, 4, dtype=torch.float64))


def test_it_works_in_place_and_takes_no_rows() -> None:
    x = torch.ones(3, 4)
    assert drop_(x, 0.5, KEY) is x and (x == 0).any()
    assert drop_(torch.ones(0, 4), 0.5, KEY).shape == (0, 4)


class OnCard(Tensor):
    """A tensor in the host's memory that says it lies on a GPU."""

    is_cuda = True


class Counted(TorchDispatchMode):
    """Operations inside, each of which is a launch on a GPU."""

    operations = 0

    def __torch_dispatch__(self, operation, kinds, arguments=(), options=None):  # type: ignore[no-untyped-def]
        self.operations += 1
        return operation(*arguments, **(options or {}))


def test_a_gpu_draws_all_values_by_as_many_launches_as_a_few() -> None:
    launches = []
    for rows in (4, 2000):  # 2,000 rows are three pieces on a CPU
        with Counted() as counted:
            dropped = drop_(torch.ones(rows, 100, dtype=torch.float64).as_subclass(OnCard), 0.1, KEY)
        launches.append(counted.operations)
        assert torch.equal(dropped.as_subclass(Tensor), ones(rows, 100))
    assert launches[0] == launches[1]
