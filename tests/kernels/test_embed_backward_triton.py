"""embed's backward kernels, interpreted: gradients against the reference in float64, bounds, traffic."""

from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from kaleido_fast.kernels.embed import embed, embed_backward_reference, embed_reference
from kaleido_fast.kernels.embed_inputs import Inputs
from kaleido_fast.kernels.geometry import GRIDS
from tests.kernels.embed_cases import (
    BF16, KERNEL_CASES, KEY, LEAVES, assert_near, case, doubled, kernel_case, packed_rows, rounding, with_strays,
)
from tests.kernels.far_memory import far_values
from tests.kernels.guards import Guards
from tests.kernels.interpreter import interpreted
from tests.kernels.mutations import Break, assert_caught
from tests.kernels.traffic import recorded

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of inf and NaN


@pytest.fixture(scope="module")
def twin() -> ModuleType:
    return interpreted("embed_backward_triton")


def run(twin: ModuleType, dpacked: Tensor, inputs: Inputs, *options: object) -> tuple[Tensor, ...]:
    with Guards() as guards:
        placed = Inputs(*(guards.place(x) for x in inputs))
        return twin.embed_backward_triton(guards.place(dpacked), placed, *options, KEY)


def incoming(num_packed: int, inputs: Inputs) -> Tensor:
    generator = torch.Generator().manual_seed(num_packed)
    return torch.randn(num_packed, inputs.word.shape[1], generator=generator).to(inputs.dtype)


def assert_right(twin: ModuleType, name: str, dtype: torch.dtype | None = None) -> None:
    """`dtype`: of the incoming gradient; by default the rows' own."""
    inputs, num_packed, grids, dropout = kernel_case(name)
    dpacked = incoming(num_packed, inputs).to(dtype)
    dpacked[packed_rows(inputs) :] = torch.nan  # spare rows pass nothing back
    found = run(twin, dpacked, inputs, grids, dropout)
    expected = embed_backward_reference(dpacked, inputs, grids, dropout, KEY)
    truth = embed_backward_reference(dpacked.double(), doubled(inputs), grids, dropout, KEY)
    kept = summed_magnitudes(dpacked.double(), doubled(inputs), grids, dropout)
    for leaf, gradient, other, true in zip(LEAVES, found, expected, truth, strict=True):
        assert (gradient.dtype, gradient.shape, gradient.stride()) == (other.dtype, other.shape, other.stride()), leaf
        bound = rounding(gradient.dtype) * true.abs() + rounding(inputs.dtype) * kept.get(leaf, 0)
        assert_near(gradient, true, bound, leaf)
    assert len({gradient.untyped_storage().data_ptr() for gradient in found if gradient.numel()}) == sum(
        gradient.numel() > 0 for gradient in found
    )


def summed_magnitudes(dpacked: Tensor, inputs: Inputs, grids: tuple[int, ...], dropout: float) -> dict[str, Tensor]:
    """For rows and words, the sum of |a row's gradient| over the rows read: each is rounded once before the sum.

    Found by giving every reader a table row of its own.
    """
    own = inputs._replace(
        tokens=torch.arange(inputs.tokens.numel(), dtype=torch.int32).view_as(inputs.tokens),
        word=inputs.word[torch.where(inputs.tokens < len(inputs.word), inputs.tokens, 0).flatten()],
        source=torch.arange(inputs.source.numel(), dtype=torch.int32).view_as(inputs.source),
        rows=inputs.rows[inputs.source.flatten().clamp(min=0)] * (inputs.source.flatten() >= 0)[:, None],
    )
    drows, _, dword, *_ = (x.abs() for x in embed_backward_reference(dpacked, own, grids, dropout, KEY))
    source, tokens = inputs.source.flatten(), inputs.tokens.flatten()
    read, live = source >= 0, tokens < len(inputs.word)
    return {
        "rows": torch.zeros_like(inputs.rows).index_add_(0, source[read], drows[read]),
        "word": torch.zeros_like(inputs.word).index_add_(0, tokens[live], dword[live]),
    }


@pytest.mark.parametrize("name", KERNEL_CASES)
def test_gradients(twin: ModuleType, name: str) -> None:
    assert_right(twin, name)


@pytest.mark.parametrize("name", ["ragged, spare rows, autocast's dtypes", "beyond 1,024"])
def test_gradients_of_rows_in_bf16(twin: ModuleType, name: str) -> None:
    assert_right(twin, name, BF16)


def test_turned_inputs_and_an_expanded_gradient_are_copied(twin: ModuleType) -> None:
    inputs, num_packed, grids, dropout = kernel_case("one sample, all tokens, own constants")
    turned = Inputs(*(x.transpose(0, -1).contiguous().transpose(0, -1) for x in inputs))
    ones = torch.ones(1, 1)
    found = run(twin, ones.expand(num_packed, 40), turned, grids, dropout)
    expected = run(twin, torch.ones(num_packed, 40), inputs, grids, dropout)
    assert all(torch.equal(x, y) and x.stride() == y.stride() for x, y in zip(found, expected, strict=True))


def test_a_place_that_no_sample_reaches_gets_zeros_whatever_its_row_holds(twin: ModuleType) -> None:
    inputs = Inputs(*(x.detach().clone() for x in case([2, 1], (1,), width=4, hidden=8, dtype=torch.float32)))
    inputs.position[2:] = torch.nan
    gradients = dict(zip(LEAVES, run(twin, incoming(5, inputs), inputs, (1,), 0.1), strict=True))
    assert not gradients["position"][2:].any() and not any(x.isnan().any() for x in gradients.values())


def test_ids_and_sources_without_a_row_have_no_gradient(twin: ModuleType) -> None:
    inputs, num_packed, grids, dropout = kernel_case("ragged, spare rows, autocast's dtypes")
    strays, plain = with_strays(inputs)
    found, expected = (run(twin, incoming(num_packed, inputs), x, grids, dropout) for x in (strays, plain))
    for leaf, gradient, other in zip(LEAVES, found, expected, strict=True):
        assert torch.equal(gradient, other[: len(gradient)]), leaf


def test_ids_behind_a_length_count_nowhere(twin: ModuleType) -> None:
    """Also where they are words of the table."""
    inputs, num_packed, grids, dropout = kernel_case("ragged, spare rows, autocast's dtypes")
    dpacked, words = incoming(num_packed, inputs), inputs._replace(tokens=inputs.tokens % len(inputs.word))
    found, expected = (run(twin, dpacked, x, grids, dropout) for x in (inputs, words))
    for gradient, other in zip(found, expected, strict=True):
        assert torch.equal(gradient, other)


def test_rows_beyond_two_to_the_31_values(twin: ModuleType) -> None:
    inputs = Inputs(*(x.detach() for x in case([2, 2], (1,), width=2, hidden=64, dtype=BF16)))
    dpacked, far = incoming(6, inputs), 2**31 // 64 + 3
    ends = torch.tensor([0, 3, 6], dtype=torch.int32)
    dtext, dpatches, sums = twin._row_gradients(dpacked, inputs, ends, (1,), 0.0, KEY)
    options = twin.tiles(64) | {"scale": 1.0, "THRESHOLD": 0}
    with far_values((far + 6) * 64, BF16) as moved, far_values((far + 4) * 64, BF16) as far_text, Guards():
        moved, far_text, found = moved.view(-1, 64), far_text.view(-1, 64), torch.zeros(1, 3, 3, 64)
        moved[far:], patches = dpacked, torch.zeros_like(dpatches)
        twin._text_backward_kernel[(2, 1)](
            moved, far_text, found, inputs.tokens, inputs.lengths, ends + far, *inputs[5:9], KEY, 2, far + 6, 11, 1,
            **options,
        )
        twin._patch_backward_kernel[(1, 1)](
            moved, patches, found, ends + far, *inputs[2:5], inputs.norm_weight, KEY, 2, far + 6, 2, 2, 0,
            OFFSETS=(0,), **options,
        )
        assert torch.equal(far_text[far:], dtext) and torch.equal(patches, dpatches) and torch.equal(found[0], sums)


def test_traffic_is_what_the_docstring_counts(twin: ModuleType) -> None:
    """Every word of the table used, so that clearing it counts once a row; sums and keys take the rest."""
    lengths = [3, 2, 3, 3] * 8
    inputs = Inputs(*(x.detach() for x in case(lengths, (1,), width=3, hidden=768, dtype=torch.float32)))
    num_packed, num_patches, row = packed_rows(inputs), inputs.source.numel(), 768 * 4
    with recorded() as traffic:
        twin.embed_backward_triton(incoming(num_packed, inputs), inputs, (1,), 0.1, KEY)
    read = int((inputs.source >= 0).sum())
    assert traffic.reads["dpacked_ptr"] == num_packed * row
    assert traffic.reads["word_ptr"] <= sum(lengths) * row and traffic.reads["rows_ptr"] <= read * row + 2**14
    assert traffic.writes["dtext_ptr"] == sum(lengths) * row and traffic.writes["dpatches_ptr"] == num_patches * row
    counted = 4 * sum(lengths) + 5 * num_patches  # torch clears tables: 6 of which 5 are the kernels'
    assert traffic.reads.total() + traffic.writes.total() <= 1.1 * counted * row


LINE = """        dx = tl.where(live, norm_gradient(dy * weight, x, rstd, HIDDEN), 0.0)
        tl.store(
            dtext"""  # the text's kernel; the patches' goes on otherwise
BREAKS = [
    Break("length", "live = place < tl.load", "live = place <= tl.load"),
    Break("dropout drawn for another row", "dy = dropped(dy, row, key_ptr, scale, THRESHOLD, HIDDEN)\n" + LINE,
          "dy = dropped(dy, row + 1, key_ptr, scale, THRESHOLD, HIDDEN)\n" + LINE),
    Break("text row", "row - sample * num_patches", "row - sample * num_patches + 1"),
    Break("a place's sums elsewhere", "tl.program_id(1).to(tl.int64) * (num_tokens + num_places) + num_tokens + place",
          "tl.program_id(1).to(tl.int64) * (num_tokens + num_places) + place"),
    Break("bias and weight", "tl.store(first + HIDDEN, dweight_sum", "tl.store(first + HIDDEN, dbias_sum"),
    Break("slope", "dnormed - mean - normed_x * slope", "dnormed - mean - slope", file="norm_triton"),
    Break("mean", "dnormed - mean - normed_x", "dnormed - normed_x", file="norm_triton"),
    Break("ids past a length", "torch.where(places < inputs.lengths[:, None], inputs.tokens, -1)", "inputs.tokens"),
    Break("words past the table", "(word < num_words)", "(word <= num_words)"),
    Break("words before the table", "(word >= 0)", "(word >= -1)"),
]


@pytest.mark.slow
def test_every_break_is_caught(tmp_path: Path) -> None:
    def check(twin: ModuleType) -> None:
        assert_right(twin, "ragged, spare rows, autocast's dtypes")
        assert_right(twin, "one sample, all tokens, own constants")
        test_ids_behind_a_length_count_nowhere(twin)
        test_ids_and_sources_without_a_row_have_no_gradient(twin)

    assert_caught("embed_backward_triton", BREAKS, check, tmp_path)


def on_device(inputs: Inputs) -> Inputs:
    return Inputs(*(x.cuda().requires_grad_(x.is_floating_point()) for x in inputs))


def arguments_of(inputs: Inputs, num_packed: int, grids: tuple[int, ...], dropout: float) -> dict[str, object]:
    return inputs._asdict() | {
        "num_packed": num_packed, "grids": grids, "dropout": dropout, "dropout_key": KEY.to(inputs.tokens.device)
    }


@pytest.mark.gpu
class TestOnDevice:
    """Forward and backward together, through the operators."""

    @pytest.mark.parametrize("name", KERNEL_CASES)
    def test_values_and_gradients(self, name: str) -> None:
        inputs, *options = kernel_case(name)
        moved = on_device(inputs)
        packed, cumulative = embed(**arguments_of(moved, *options))
        truth, ends = embed_reference(doubled(inputs), *options, KEY)
        assert torch.equal(cumulative.cpu(), ends) and torch.equal(packed.cpu() == 0, truth == 0)
        assert_near(packed.detach().cpu(), truth, rounding(packed.dtype) * truth.abs())

        dpacked = incoming(options[0], inputs)
        found = torch.autograd.grad(packed, [getattr(moved, leaf) for leaf in LEAVES], dpacked.cuda())
        expected = embed_backward_reference(dpacked.double(), doubled(inputs), *options[1:], KEY)
        kept = summed_magnitudes(dpacked.double(), doubled(inputs), *options[1:])
        for leaf, gradient, true in zip(LEAVES, found, expected, strict=True):
            bound = rounding(gradient.dtype) * true.abs() + rounding(inputs.dtype) * kept.get(leaf, 0)
            assert_near(gradient.cpu(), true, bound, leaf)

    def test_a_large_batch_gives_the_same_bits_twice(self) -> None:
        lengths = torch.randint(2, 65, (300,), generator=torch.Generator().manual_seed(0)).tolist()
        inputs = case(lengths, GRIDS, width=64, hidden=768, dtype=BF16)
        moved = on_device(Inputs(*(x.detach() for x in inputs)))
        options = arguments_of(moved, packed_rows(moved) + 9, GRIDS, 0.1)
        leaves = [getattr(moved, leaf) for leaf in LEAVES]
        runs = [torch.autograd.grad(embed(**options)[0].float().square().sum(), leaves) for _ in range(2)]
        assert all(torch.equal(x, y) for x, y in zip(*runs, strict=True))

    def test_operators_and_compiler(self) -> None:
        inputs, num_packed, grids, dropout = kernel_case("ragged, spare rows, autocast's dtypes")
        moved, key = on_device(inputs), KEY.cuda()
        torch.library.opcheck(
            torch.ops.kaleido_fast.embed.default, (*moved, num_packed, list(grids), dropout, key, None)
        )
        tensors = [x.detach() for x in moved]
        torch.library.opcheck(
            torch.ops.kaleido_fast.embed_backward.default,
            (incoming(num_packed, inputs).cuda(), *tensors, list(grids), dropout, key),
        )
        options = arguments_of(moved, num_packed, grids, dropout)
        leaves = [getattr(moved, leaf) for leaf in LEAVES]
        packed, compiled = embed(**options)[0], torch.compile(embed, fullgraph=True)(**options)[0]
        assert torch.equal(packed, compiled)
        for x, y in zip(*(torch.autograd.grad(out.sum(), leaves) for out in (packed, compiled)), strict=True):
            assert torch.equal(x, y)

    def test_graph_replays_with_another_step(self) -> None:
        inputs, *options = kernel_case("ragged, spare rows, autocast's dtypes")
        moved = on_device(inputs)
        arguments = arguments_of(moved, *options)
        leaves = [getattr(moved, leaf) for leaf in LEAVES]

        def step() -> tuple[Tensor, ...]:
            packed, cumulative = embed(**arguments)
            return packed, cumulative, *torch.autograd.grad(packed.square().sum(), leaves)

        side = torch.cuda.Stream()
        with torch.cuda.stream(side):  # compiles, and gives autograd its buffers, off the default stream
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            kept = step()
        arguments["dropout_key"].add_(torch.tensor([0, 1, 0], device="cuda"))
        graph.replay()
        assert all(torch.equal(x, y) for x, y in zip(kept, step(), strict=True))
