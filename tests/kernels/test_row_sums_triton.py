"""row_sums_triton.py, interpreted: sums by key against float64, their order, bounds, far addresses, breaks."""

from pathlib import Path
from types import ModuleType

import pytest
import torch

from tests.kernels.embed_cases import BF16
from tests.kernels.far_memory import far_values
from tests.kernels.guards import Guards
from tests.kernels.interpreter import interpreted
from tests.kernels.mutations import Break, assert_caught


@pytest.fixture(scope="module")
def twin() -> ModuleType:
    return interpreted("row_sums_triton")


KEYS = {
    "one key": [3],
    "none counts": [-1] * 40,
    "each alone": list(range(37)),
    "a run over many chunks, from one's start": [0] * 32 + [1] * 300 + [2],
    "a run over many chunks, from one's middle": [0] * 5 + [7] * 400,
    "runs that end with a chunk": [0] * 32 + [1] * 32 + [2] * 64,
    "runs across each chunk's end": [i // 7 for i in range(200)],
    "shuffled, with gaps and -1": [(i * 37) % 11 - 1 for i in range(150)],
}


def assert_sums(twin: ModuleType, keys: list[int], hidden: int = 16) -> None:
    generator = torch.Generator().manual_seed(len(keys))
    values = torch.randn(len(keys) + 5, hidden, generator=generator)
    rows = torch.randperm(len(keys) + 5, generator=generator)[: len(keys)]
    index, table = torch.tensor(keys, dtype=torch.int32), torch.full((40, hidden), torch.nan)
    with Guards() as guards:
        sums = twin.sum_rows(*(guards.place(x) for x in (values, index, rows, table)))
    counted = index >= 0
    truth = torch.zeros(40, hidden, dtype=torch.float64)
    truth.index_add_(0, index[counted].long(), values[rows[counted]].double())
    torch.testing.assert_close(sums.double(), truth, rtol=1e-5, atol=1e-5)
    assert torch.equal(sums[truth.abs().sum(dim=1) == 0], torch.zeros(int((truth.abs().sum(dim=1) == 0).sum()), hidden))


@pytest.mark.parametrize("name", KEYS)
def test_sums_by_key(twin: ModuleType, name: str) -> None:
    assert_sums(twin, KEYS[name])


def test_a_key_without_a_row_in_the_table_writes_nowhere(twin: ModuleType) -> None:
    keys = [3, 40, 5, 2**31 - 1, 40, -7] * 12  # of a table of 40: a broken id must not reach other memory
    values, index = torch.randn(len(keys), 16), torch.tensor(keys, dtype=torch.int32)
    with Guards() as guards:
        sums = twin.sum_rows(*(guards.place(x) for x in (values, index, torch.arange(len(keys)), torch.zeros(40, 16))))
    for key in (3, 5):
        torch.testing.assert_close(sums[key], values[index == key].sum(dim=0), rtol=1e-5, atol=1e-5)
    assert torch.count_nonzero(sums.abs().sum(dim=1)) == 2


def test_the_order_of_a_sum_is_that_of_the_rows_given(twin: ModuleType) -> None:
    """1e8 + 1 - 1e8 is 0 in this order alone, however the keys are mixed."""
    values = torch.tensor([[1e8], [1.0], [-1e8]]).expand(3, 8).contiguous()
    keys, rows = torch.tensor([1, 0, 1, 1], dtype=torch.int32), torch.tensor([0, 1, 1, 2])
    assert twin.sum_rows(values, keys, rows, torch.zeros(2, 8))[:, 0].tolist() == [1.0, 0.0]
    other = twin.sum_rows(values, keys, torch.tensor([0, 1, 2, 1]), torch.zeros(2, 8))
    assert other[:, 0].tolist() == [1.0, 1.0]


def test_rows_beyond_two_to_the_31_values(twin: ModuleType) -> None:
    far = 2**31 // 64 + 3
    keys, rows = torch.tensor([far] * 33, dtype=torch.int32), torch.arange(far, far + 33)
    tile = {"HIDDEN": 64, "BLOCK": 64, "CHUNK": 32}
    with far_values((far + 33) * 64, BF16) as values, far_values((far + 1) * 64, BF16) as table, Guards():
        values, table, pieces = values.view(-1, 64), table.view(-1, 64), torch.zeros(2, 2, 64)
        values[far:] = torch.arange(33.0)[:, None]
        twin._runs_kernel[(2,)](values, keys, rows, table, pieces, 33, **tile)
        twin._join_kernel[(1,)](pieces, keys, torch.tensor([33]), table, PIECES=8, **tile)
        assert (table[far] == 33 * 16).all()


BREAKS = [
    Break("run goes on", "total = tl.where(key == after, total, 0.0)", "total = total"),
    Break("whole though it began before", "whole = ends & ((key != opening) | (before != opening))", "whole = ends"),
    Break("slots mixed up", "tl.store(pieces_ptr + slot", "tl.store(pieces_ptr + chunk"),
    Break("joined from every chunk", "crosses & ((key != opening) | (before != opening))", "crosses"),
    Break("last piece", "- 1) // CHUNK + 1, 0)", "- 1) // CHUNK, 0)"),
    Break("not stable", "keys, -1), stable=True)", "keys, -1).flip(0))"),
    Break("a key too few", "min(CHUNK, num_keys - first)", "min(CHUNK - 1, num_keys - first)"),
]


@pytest.mark.slow
def test_every_break_is_caught(tmp_path: Path) -> None:
    def check(twin: ModuleType) -> None:
        for name in KEYS:
            assert_sums(twin, KEYS[name])

    assert_caught("row_sums_triton", BREAKS, check, tmp_path)
