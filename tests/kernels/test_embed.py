"""embed against a loop over samples with nn.LayerNorm in float64: values, gradients, dropout, registration."""

import re
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from kaleido_fast.kernels.dropout import drop_
from kaleido_fast.kernels.embed import embed, embed_backward_reference
from kaleido_fast.kernels.embed_inputs import Inputs
from kaleido_fast.kernels.geometry import GRIDS
from tests.kernels.embed_cases import KEY, LEAVES, UNREAD, case, packed_rows

OPERATOR = torch.ops.kaleido_fast.embed.default
BACKWARD = torch.ops.kaleido_fast.embed_backward.default


def run(
    inputs: Inputs, grids: Sequence[int] = (1, 2), spare: int = 0, dropout: float = 0.0, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    arguments = inputs._asdict() | {"num_packed": packed_rows(inputs) + spare}
    return embed(**arguments, grids=grids, dropout=dropout, dropout_key=KEY, dtype=dtype)


def plain(inputs: Inputs, grids: Sequence[int] = (1, 2), spare: int = 0, dropout: float = 0.0) -> Tensor:
    """SPEC 7 a sample at a time, padded with zeros; differentiable."""
    sequences = []
    for sample, length in enumerate(inputs.lengths.tolist()):
        for t in range(length):
            word = inputs.word[int(inputs.tokens[sample, t])]
            sequences.append(normed(word + inputs.position[t] + inputs.segment, inputs, 0))
        levels = [level for level, grid in enumerate(grids, start=1) for _ in range(grid * grid)]
        for p, level in enumerate(levels):
            row = int(inputs.source[sample, p])
            constant = inputs.constant[p] if inputs.constant.dim() == 2 else inputs.constant[sample, p]
            sequences.append(normed(constant if row < 0 else inputs.rows[row] + constant, inputs, level))
    sequences += [torch.zeros_like(inputs.segment)] * spare
    packed = torch.stack(sequences)
    return packed * drop_(torch.ones_like(packed), dropout, KEY) if dropout else packed


def normed(x: Tensor, inputs: Inputs, norm: int) -> Tensor:
    layer = nn.LayerNorm(len(x), eps=1e-12, elementwise_affine=False)
    return layer(x) * inputs.norm_weight[norm] + inputs.norm_bias[norm]


def gradients(packed: Tensor, inputs: Inputs) -> dict[str, Tensor]:
    """Of a random weighting of the packed rows, those past the last sample too."""
    weights = torch.randn(packed.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    leaves = [getattr(inputs, name) for name in LEAVES]
    found = torch.autograd.grad((packed * weights).sum(), leaves, allow_unused=True)
    return {name: torch.zeros_like(x) if g is None else g for name, x, g in zip(LEAVES, leaves, found, strict=True)}


CASES = [
    ("one sample", [4], (1, 2), False, 0),
    ("ragged", [9, 1, 4, 2], (1, 2), False, 0),
    ("spare rows", [3, 9, 5], (1, 2), False, 7),
    ("no text in some", [0, 3, 0, 0, 2, 0], (1, 2), False, 3),
    ("no text at all", [0, 0], (1, 2), False, 0),
    ("text alone", [9, 0, 4], (), False, 0),
    ("text alone, spare rows", [2, 0], (), False, 5),
    ("a sample's own constants", [5, 2, 7], (2, 1), True, 1),
    ("one grid of 8", [4, 6], (8,), False, 0),
    ("five levels", [3, 8, 2], GRIDS, True, 0),
]


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("lengths, grids, own, spare", [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_values_and_gradients_equal_a_loop_over_samples(
    lengths: list[int], grids: tuple[int, ...], own: bool, spare: int, dropout: float
) -> None:
    inputs = case(lengths, grids, own_constants=own)
    packed, cumulative = run(inputs, grids, spare, dropout)
    expected = plain(inputs, grids, spare, dropout)
    assert packed.shape == expected.shape and packed.dtype == torch.float64
    torch.testing.assert_close(packed, expected, rtol=1e-11, atol=1e-11)
    assert not packed[len(packed) - spare :].any()

    num_patches = inputs.source.shape[1]
    ends = [sum(lengths[:n]) + n * num_patches for n in range(len(lengths) + 1)]
    assert cumulative.tolist() == ends and cumulative.dtype == torch.int32

    found, truth = gradients(packed, inputs), gradients(expected, inputs)
    for name in LEAVES:
        assert found[name].shape == truth[name].shape
        torch.testing.assert_close(found[name], truth[name], rtol=1e-10, atol=1e-10, msg=name)


@pytest.mark.parametrize("hidden, dtype, error", [
    (64, torch.float32, 2e-6), (101, torch.float32, 2e-6), (64, torch.bfloat16, 2**-7)
])
def test_lower_precision_is_as_good_as_its_rounding(hidden: int, dtype: torch.dtype, error: float) -> None:
    inputs = case([9, 3, 5], GRIDS, hidden=hidden, dtype=dtype)
    packed, _ = run(inputs, GRIDS, dropout=0.1)
    widened = Inputs(*(x.detach().double().requires_grad_() if x.is_floating_point() else x for x in inputs))
    truth = plain(widened, GRIDS, dropout=0.1)
    assert packed.dtype == dtype
    torch.testing.assert_close(packed.double(), truth, rtol=error, atol=error)
    found, expected = gradients(packed, inputs), gradients(truth, widened)
    for name in LEAVES:
        assert found[name].dtype == dtype
        scale = expected[name].abs().max().item()
        torch.testing.assert_close(found[name].double(), expected[name], rtol=0, atol=2 * error * scale, msg=name)


def test_gradcheck_under_dropout() -> None:
    inputs = case([2, 0, 3], hidden=5)

    def packed(*leaves: Tensor) -> Tensor:
        return run(inputs._replace(**dict(zip(LEAVES, leaves, strict=True))), spare=2, dropout=0.3)[0]

    assert torch.autograd.gradcheck(packed, [getattr(inputs, name) for name in LEAVES])


def test_a_spare_row_passes_nothing_back() -> None:
    inputs = case([2, 3])
    used = packed_rows(inputs)
    dpacked = torch.zeros(used + 4, 6, dtype=torch.float64)
    dpacked[used:] = torch.nan
    tensors = Inputs(*(x.detach() for x in inputs))
    for gradient in embed_backward_reference(dpacked, tensors, (1, 2), 0.0, KEY):
        assert not gradient.any()  # NaN would count as any


def test_dropout_is_keyed_by_the_packed_row() -> None:
    """A longer batch leaves the rows before it as they were; another step drops others."""
    inputs = case([4, 3, 5])
    alone = inputs._replace(
        tokens=inputs.tokens[:2], lengths=inputs.lengths[:2], source=inputs.source[:2]
    )
    few, many = run(alone, dropout=0.5)[0], run(inputs, dropout=0.5)[0]
    assert torch.equal(few, many[: len(few)])
    arguments = inputs._asdict() | {"num_packed": packed_rows(inputs), "grids": (1, 2), "dropout": 0.5}
    next_step = embed(**arguments, dropout_key=KEY + torch.tensor([0, 1, 0]))[0]
    assert not torch.equal(next_step == 0, many == 0) and torch.equal(run(inputs, dropout=0.5)[0], many)


def test_no_input_is_changed() -> None:
    inputs = case([4, 3])
    kept = [x.detach().clone() for x in inputs]
    packed, _ = run(inputs, spare=1, dropout=0.5)
    incoming = torch.ones_like(packed)
    packed.backward(incoming)
    assert all(torch.equal(x, y) for x, y in zip(inputs, kept, strict=True)) and incoming.min() == 1


def test_what_stands_behind_a_length_is_not_read() -> None:
    inputs = case([0, 4, 0])
    assert (inputs.tokens == UNREAD).any()
    other = inputs._replace(tokens=torch.where(inputs.tokens == UNREAD, -5, inputs.tokens))
    assert torch.equal(run(other, spare=2)[0], run(inputs, spare=2)[0])


def test_non_contiguous_inputs_give_the_same() -> None:
    inputs = case([4, 3, 5], own_constants=True)
    turned = Inputs(*(
        x.detach().transpose(0, -1).contiguous().transpose(0, -1).requires_grad_(x.requires_grad) for x in inputs
    ))
    assert not turned.word.is_contiguous()
    packed, again = run(inputs, dropout=0.2)[0], run(turned, dropout=0.2)[0]
    assert torch.equal(packed, again)
    found, expected = gradients(again, turned), gradients(packed, inputs)
    assert all(torch.equal(found[name], expected[name]) for name in LEAVES)
    torch.library.opcheck(OPERATOR, (*turned, packed_rows(turned), [1, 2], 0.2, KEY, None))


def test_half_precision_rows_meet_full_tables_in_fp32() -> None:
    """What autocast hands over: projected rows in bf16, parameters in fp32."""
    inputs = case([4, 3], dtype=torch.float32)
    mixed = inputs._replace(rows=inputs.rows.detach().bfloat16().requires_grad_())
    with torch.autocast("cpu", torch.bfloat16):
        packed, _ = run(mixed)
    assert packed.dtype == torch.float32
    assert torch.equal(packed, run(inputs._replace(rows=mixed.rows.detach().float()))[0])
    packed.sum().backward()
    assert mixed.rows.grad.dtype == torch.bfloat16 and inputs.word.grad.dtype == torch.float32


def test_rows_are_rounded_once_to_the_dtype_asked_for() -> None:
    """The same numbers are rounded, and the tables' gradients are those of the incoming one, whatever its dtype."""
    inputs = case([4, 3], dtype=torch.float32)
    full, half = run(inputs, dropout=0.2)[0], run(inputs, dropout=0.2, dtype=torch.bfloat16)[0]
    assert half.dtype == torch.bfloat16 and torch.equal(half, full.bfloat16())
    incoming = torch.randn(full.shape, generator=torch.Generator().manual_seed(0)).bfloat16()
    leaves = [getattr(inputs, name) for name in LEAVES]
    both = (torch.autograd.grad(full, leaves, incoming.float()), torch.autograd.grad(half, leaves, incoming))
    for name, expected, found in zip(LEAVES, *both, strict=True):
        assert found.dtype == torch.float32 and torch.equal(found, expected), name


@pytest.mark.parametrize("lengths, grids, dropout", [([4, 0, 3], (1, 2), 0.3), ([5], (), 0.0), ([2], (2,), 0.0)])
def test_the_operators_are_registered_in_full(lengths: list[int], grids: tuple[int, ...], dropout: float) -> None:
    inputs = case(lengths, grids, own_constants=len(lengths) == 1, dtype=torch.float32)
    num_packed, options = packed_rows(inputs) + 2, (list(grids), dropout, KEY)
    for dtype in (None, torch.bfloat16):
        torch.library.opcheck(OPERATOR, (*inputs, num_packed, *options, dtype))
    tensors = [x.detach() for x in inputs]
    torch.library.opcheck(BACKWARD, (torch.randn(num_packed, 6), *tensors, *options))


def test_compiled_it_is_one_graph_with_the_same_bits() -> None:
    inputs = case([4, 3, 6], dtype=torch.float32)
    packed, cumulative = run(inputs, dropout=0.3)
    arguments = inputs._asdict() | {"num_packed": packed_rows(inputs), "grids": (1, 2), "dropout": 0.3}
    compiled, compiled_ends = torch.compile(embed, fullgraph=True)(**arguments, dropout_key=KEY)
    assert torch.equal(compiled, packed) and torch.equal(compiled_ends, cumulative)
    found, expected = gradients(compiled, inputs), gradients(packed, inputs)
    assert all(torch.equal(found[name], expected[name]) for name in LEAVES)


@pytest.mark.parametrize("name, shape, must", [
    ("tokens", (3, 9), "(2, 9) int32"),
    ("lengths", (2, 1), "(2,) int32"),
    ("rows", (10, 5), "(10, 6) floating"),
    ("source", (2, 4), "(2, 5) int32"),
    ("constant", (4, 6), "(5, 6) floating"),
    ("constant", (3, 5, 6), "(2, 5, 6) floating"),
    ("word", (6,), "(6, 6) floating"),
    ("position", (11, 5), "(11, 6) floating"),
    ("segment", (1, 6), "(6,) floating"),
    ("norm_weight", (2, 6), "(3, 6) floating"),
    ("norm_bias", (4, 6), "(3, 6) floating"),
])
def test_a_wrong_shape_is_named(name: str, shape: tuple[int, ...], must: str) -> None:
    inputs = case([4, 3])
    wrong = torch.zeros(shape, dtype=getattr(inputs, name).dtype)
    found = re.escape(f"embed: {name} {shape} {wrong.dtype} must be {must}, to go with B=2 of lengths, H=6 of word")
    with pytest.raises(ValueError, match=f"^{found} and grids"):
        run_replaced(inputs, {name: wrong})


@pytest.mark.parametrize("name, dtype, must", [
    ("tokens", torch.int64, "(2, 9) int32"), ("source", torch.int64, "(2, 5) int32"),
    ("word", torch.int32, "(11, 6) floating"),
])
def test_a_wrong_dtype_is_named(name: str, dtype: torch.dtype, must: str) -> None:
    inputs = case([4, 3])
    with pytest.raises(ValueError, match=re.escape(f"{dtype} must be {must}")):
        run_replaced(inputs, {name: getattr(inputs, name).detach().to(dtype)})


@pytest.mark.parametrize("change, message", [
    ({"position": torch.zeros(8, 6)},
     "tokens of width 9 must fit the 8 rows of position; cut the text or give position more rows"),
    ({"num_packed": 9}, r"num_packed=9 must be at least sum\(lengths\) \+ B \* K, and B \* K alone is 10; count"),
    ({"num_packed": 16}, r"num_packed=16 must be at least sum\(lengths\) \+ B \* K = 17; count both"),
    ({"lengths": torch.tensor([10, 3], dtype=torch.int32)}, "lengths from 3 to 10 must lie in 0..9; cut them"),
    ({"lengths": torch.tensor([-1, 3], dtype=torch.int32)}, "lengths from -1 to 3 must lie in 0..9; cut them"),
    ({"tokens": torch.full((2, 9), 11, dtype=torch.int32)}, "tokens from 11 to 11 must lie in 0..10; take the"),
    ({"source": torch.full((2, 5), 10, dtype=torch.int32)}, "source from 10 to 10 must lie in -1..9; take the"),
    ({"source": torch.full((2, 5), -2, dtype=torch.int32)}, "source from -2 to -2 must lie in -1..9; take the"),
    ({"dropout": 1.0}, r"dropout=1.0 must lie in \[0, 1\) and dropout_key \(3,\) torch.int64 be \(3,\) int64"),
    ({"dropout": -0.1}, r"dropout=-0.1 must lie in \[0, 1\)"),
    ({"dropout_key": torch.zeros(2, dtype=torch.int64)}, r"dropout=0.0 .* dropout_key \(2,\) torch.int64 be"),
    ({"dropout_key": torch.zeros(3)}, r"dropout=0.0 .* dropout_key \(3,\) torch.float32 be \(3,\) int64"),
])
def test_messages(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^embed: {message}"):
        run_replaced(case([4, 3]), change)


def run_replaced(inputs: Inputs, change: dict[str, object]) -> None:
    options = {"num_packed": packed_rows(inputs), "grids": (1, 2), "dropout": 0.0, "dropout_key": KEY}
    embed(**(inputs._asdict() | options | change))
