"""embed's forward kernels, interpreted: parity with the reference in float64, dropout's every bit, bounds, traffic."""

from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from kaleido_fast.kernels import dropout_triton
from kaleido_fast.kernels.embed import embed_reference
from kaleido_fast.kernels.embed_inputs import Inputs
from kaleido_fast.kernels.philox import philox
from tests.kernels.embed_cases import (
    BF16, KERNEL_CASES, KEY, assert_near, case, doubled, kernel_case, packed_rows, rounding, with_strays,
)
from tests.kernels.far_memory import far_values
from tests.kernels.guards import Guards
from tests.kernels.interpreter import interpreted, load_twin
from tests.kernels.mutations import Break, assert_caught
from tests.kernels.traffic import recorded

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of inf and NaN


@pytest.fixture(scope="module")
def twin() -> ModuleType:
    return interpreted("embed_triton")


def run(twin: ModuleType, inputs: Inputs, *options: object, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
    with Guards() as guards:
        return twin.embed_triton(Inputs(*(guards.place(x) for x in inputs)), *options, KEY, dtype)


def assert_right(twin: ModuleType, name: str, dtype: torch.dtype | None = None) -> None:
    inputs, num_packed, grids, dropout = kernel_case(name)
    packed, cumulative = run(twin, inputs, num_packed, grids, dropout, dtype=dtype)
    truth, ends = embed_reference(doubled(inputs), num_packed, grids, dropout, KEY)
    assert torch.equal(cumulative, ends) and cumulative.dtype == torch.int32
    assert packed.dtype == (dtype or inputs.dtype) and packed.shape == truth.shape and packed.is_contiguous()
    assert torch.equal(packed == 0, truth == 0)  # the mask, and the rows past the last sample
    assert_near(packed, truth, rounding(packed.dtype) * truth.abs())


@pytest.mark.parametrize("name", KERNEL_CASES)
def test_packed_rows_and_cumulative_lengths(twin: ModuleType, name: str) -> None:
    assert_right(twin, name)


@pytest.mark.parametrize("name", ["ragged, spare rows, autocast's dtypes", "beyond 1,024"])
def test_rows_in_the_dtype_asked_for(twin: ModuleType, name: str) -> None:
    assert_right(twin, name, BF16)


def test_more_samples_than_one_pass_over_the_lengths(twin: ModuleType) -> None:
    lengths = torch.randint(0, 65, (2500,), dtype=torch.int32, generator=torch.Generator().manual_seed(0))
    with Guards() as guards:
        cumulative = twin.cumulative_lengths(guards.place(lengths), 55)
    assert torch.equal(cumulative, torch.nn.functional.pad((lengths + 55).cumsum(0), (1, 0)).int())


def test_no_samples_and_no_places(twin: ModuleType) -> None:
    inputs = Inputs(*(x.detach() for x in case([2, 2], (1,), hidden=8, dtype=torch.float32)))
    none = inputs._replace(tokens=inputs.tokens[:0], lengths=inputs.lengths[:0], source=inputs.source[:0])
    packed, cumulative = run(twin, none, 3, (1,), 0.1)
    assert cumulative.tolist() == [0] and not packed.any()
    narrow = inputs._replace(tokens=inputs.tokens[:, :0], lengths=torch.zeros(2, dtype=torch.int32))
    packed, cumulative = run(twin, narrow, 3, (1,), 0.1)
    assert cumulative.tolist() == [0, 1, 2] and packed[:2].any(dim=1).all() and not packed[2].any()


def test_rows_of_equal_values_huge_ones_and_nan(twin: ModuleType) -> None:
    """A row without variance is its norm's bias (its sum being exact), and NaN stays in the rows that read it."""
    inputs = Inputs(*(x.detach().clone() for x in case([4, 4], (1, 2), width=4, hidden=24, dtype=torch.float32)))
    inputs.tokens[:] = torch.tensor([[0, 1, 2, 3]] * 2)
    inputs.source[:] = torch.tensor([[0, 1, 2, -1, 3], [-1, 4, 5, 6, 7]])
    inputs.position.zero_()
    inputs.segment.zero_()
    inputs.constant[3:].zero_()
    inputs.word[1], inputs.word[2], inputs.word[3, 5] = 1.5, 1e15 * inputs.word[2], torch.nan
    inputs.rows[3], inputs.rows[4] = -7.75, torch.nan
    packed, _ = run(twin, inputs, packed_rows(inputs), (1, 2), 0.0)
    expected, _ = embed_reference(inputs, packed_rows(inputs), (1, 2), 0.0, KEY)
    torch.testing.assert_close(packed, expected, rtol=1e-5, atol=1e-5, equal_nan=True)
    assert packed.isnan().any(dim=1).nonzero().flatten().tolist() == [3, 12, 14]
    assert torch.equal(packed[[1, 7, 8]], inputs.norm_bias[[0, 2, 2]])


def test_dropout_takes_all_bits_of_the_counter(tmp_path: Path) -> None:
    """Rows whose counters need more than 32 bits, of a width at which no tile is full."""
    text = Path(dropout_triton.__file__).read_text(encoding="utf-8")
    first_row = 2**32 // 6 - 1
    counter = ((first_row + torch.arange(4)) * 24)[:, None] // 4 + torch.arange(6)
    assert counter.min() < 2**32 < counter.max()
    words = torch.stack(philox(KEY[0], KEY[0] >> 32, counter, counter >> 32, KEY[1], KEY[2]), dim=2)
    expected = torch.where(words.flatten(1) < 2**31 + 1, 0.0, 2.0)
    assert torch.equal(dropped_ones(text, first_row, tmp_path), expected)
    for part in ("(counter >> 32)", "tl.load(key_ptr + 1)", "tl.load(key_ptr + 2)"):
        assert text.count(part) == 1
        assert not torch.equal(dropped_ones(text.replace(part, f"(1 + {part})"), first_row, tmp_path), expected)


def dropped_ones(text: str, first_row: int, folder: Path) -> Tensor:
    """(4, 24) ones dropped out by the helper in `text`, or by a broken one."""
    kernel = '''

@triton.jit
def drop_kernel(out_ptr, key_ptr, first_row, THRESHOLD: tl.constexpr):
    row = first_row + tl.arange(0, 4)[:, None].to(tl.int64)
    place = tl.arange(0, 4)[:, None] * 32 + tl.arange(0, 32)[None, :]
    tl.store(out_ptr + place, dropped(tl.full((4, 32), 1.0, tl.float32), row, key_ptr, 2.0, THRESHOLD, 24))
'''
    path, out = folder / "dropout_triton.py", torch.zeros(4, 32)
    path.write_text(text + kernel, encoding="utf-8")
    load_twin("dropout_triton", {"dropout_triton": path}).drop_kernel[(1,)](out, KEY, first_row, THRESHOLD=2**31 + 1)
    return out[:, :24]


def test_tables_and_packed_rows_beyond_two_to_the_31_values(twin: ModuleType) -> None:
    inputs = Inputs(*(x.detach() for x in case([2, 2], (1,), width=2, hidden=64, dtype=BF16)))
    expected, _ = twin.embed_triton(inputs, 6, (1,), 0.0, KEY)
    far, row = 2**31 // 64 + 3, torch.arange(2)
    with far_values((far + 11) * 64, BF16) as word, far_values((far + 2) * 64, BF16) as rows, Guards():
        word, rows = word.view(-1, 64), rows.view(-1, 64)
        word[far:], rows[far:] = inputs.word, inputs.rows
        moved = inputs._replace(
            word=word, rows=rows, tokens=inputs.tokens + far,
            source=torch.where(inputs.source < 0, inputs.source, inputs.source + far),
        )
        found, _ = twin.embed_triton(moved, 6, (1,), 0.0, KEY)
    assert torch.equal(found, expected)

    options = twin.tiles(64) | {"scale": 1.0, "THRESHOLD": 0}
    with far_values((far + 8) * 64, BF16) as packed, Guards():
        packed, cumulative = packed.view(-1, 64), torch.tensor([far, far + 3, far + 6], dtype=torch.int32)
        twin._text_kernel[(2, 1)](
            packed, inputs.tokens, inputs.lengths, cumulative, *inputs[5:], KEY, 2, far + 8, 11, **options
        )
        twin._patch_kernel[(1, 1)](
            packed, cumulative, *inputs[2:5], *inputs[8:], KEY, 2, far + 8, 2, 0, OFFSETS=(0,), **options
        )
        assert torch.equal(packed[far + row], expected[row]) and torch.equal(packed[far : far + 6], expected)
        assert not packed[far + 6 :].any() and not packed[: 2**10].any()


def test_turned_tables_are_copied(twin: ModuleType) -> None:
    inputs, num_packed, grids, dropout = kernel_case("one sample, all tokens, own constants")
    turned = Inputs(*(x.transpose(0, -1).contiguous().transpose(0, -1) for x in inputs))
    assert not turned.word.is_contiguous()
    found, expected = (run(twin, x, num_packed, grids, dropout)[0] for x in (turned, inputs))
    assert torch.equal(found, expected)


def test_what_does_not_fit_n_is_not_written(twin: ModuleType) -> None:
    """On a GPU nobody looks at lengths, so a wrong N must not write into other tensors."""
    inputs, num_packed, grids, dropout = kernel_case("ragged, spare rows, autocast's dtypes")
    whole, few = (run(twin, inputs, n, grids, dropout)[0] for n in (num_packed, 30))
    assert torch.equal(few, whole[:30])


def test_ids_and_sources_without_a_row_read_as_zeros(twin: ModuleType) -> None:
    """On a GPU nobody looks at them, so broken ones must not read other memory."""
    inputs, num_packed, grids, dropout = kernel_case("ragged, spare rows, autocast's dtypes")
    strays, plain = with_strays(inputs)
    found, expected = (run(twin, x, num_packed, grids, dropout) for x in (strays, plain))
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


@pytest.mark.parametrize("dtype", [torch.float32, BF16])
def test_traffic_is_rows_read_once_and_written_once(twin: ModuleType, dtype: torch.dtype) -> None:
    """DESIGN 'Operations': per packed row the row gathered, its position's row, and the row written."""
    lengths = [4, 3, 2, 4] * 8
    inputs = Inputs(*(x.detach() for x in case(lengths, (1, 2), width=4, hidden=768, dtype=dtype)))
    num_packed, row = packed_rows(inputs), 768 * dtype.itemsize
    with recorded() as traffic:
        twin.embed_triton(inputs, num_packed, (1, 2), 0.1, KEY)
    assert traffic.writes["packed_ptr"] == num_packed * row
    assert traffic.reads["word_ptr"] <= sum(lengths) * row
    assert traffic.reads["rows_ptr"] <= int((inputs.source >= 0).sum()) * row
    assert traffic.reads["elsewhere"] == 0
    assert traffic.reads.total() + traffic.writes.total() <= 1.1 * 3 * num_packed * row


def test_they_are_the_operators_on_a_gpu() -> None:
    for name in ("embed", "embed_backward"):
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"kaleido_fast::{name}", "CUDA")


@pytest.mark.parametrize("hidden, dtype, message", [
    (12, torch.float32, "hidden width 12 must be a multiple of 8 up to 4,096 on a GPU; give word, rows and constant"),
    (4104, torch.float32, "hidden width 4,104 must be a multiple of 8 up to 4,096 on a GPU"),
    (8, torch.float64, "rows is float64, must be fp32 or half precision on a GPU; convert it, or move the batch"),
])
def test_messages(twin: ModuleType, hidden: int, dtype: torch.dtype, message: str) -> None:
    inputs = case([2], (1,), hidden=hidden, dtype=dtype)
    with pytest.raises(ValueError, match=f"^embed: {message}"):
        twin.embed_triton(inputs, 3, (1,), 0.0, KEY)
    with pytest.raises(ValueError, match=f"^embed: {message}"):
        interpreted("embed_backward_triton").embed_backward_triton(torch.zeros(3, hidden), inputs, (1,), 0.0, KEY)


BREAKS = [
    Break("length", "live = place < tl.load", "live = place <= tl.load"),
    Break("segment", "at_place += tl.load(segment_ptr", "at_place += 0 * tl.load(segment_ptr"),
    Break("blank rows read", "shown = (source >= 0) &", "shown = (source >= -1) &"),
    Break("words past the table", "(word < num_words)", "(word <= num_words)"),
    Break("words before the table", "(word >= 0)", "(word >= -1)"),
    Break("rows past the table", "(source < num_rows)", "(source <= num_rows)"),
    Break("own constants", "sample.to(tl.int64) * constant_stride", "sample.to(tl.int64) * 0"),
    Break("level", "position >= OFFSETS[level]", "position > OFFSETS[level]"),
    Break("spare rows", "range(spare, num_packed", "range(spare + 1, num_packed"),
    Break("cumulative", "total + tl.cumsum(rows, axis=0)", "tl.cumsum(rows, axis=0)"),
    Break("narrow offsets", "word_ptr + word * HIDDEN + column", "word_ptr + (word * HIDDEN + column).to(tl.int32)"),
    Break("words in another order", "tl.join(word0, word2), tl.join(word1", "tl.join(word0, word1), tl.join(word2",
          file="dropout_triton"),
    Break("mean", "x - mean, 0.0", "x - 0 * mean, 0.0", file="norm_triton"),
    Break("outside in the variance", "tl.where(inside, x - mean, 0.0)", "x - mean", file="norm_triton"),
]


@pytest.mark.slow
def test_every_break_is_caught(tmp_path: Path) -> None:
    def check(twin: ModuleType) -> None:
        assert_right(twin, "ragged, spare rows, autocast's dtypes")
        assert_right(twin, "one sample, all tokens, own constants")
        assert_right(twin, "two blocks of samples, bf16")
        test_more_samples_than_one_pass_over_the_lengths(twin)
        test_tables_and_packed_rows_beyond_two_to_the_31_values(twin)
        test_ids_and_sources_without_a_row_read_as_zeros(twin)

    assert_caught("embed_triton", BREAKS, check, tmp_path)

