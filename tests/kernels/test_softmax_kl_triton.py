"""The softmax_kl kernel, interpreted: parity with the reference, extreme rows, layouts, bounds, traffic, mutations."""

import math
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from kaleido_fast.kernels import softmax_kl_triton as real
from kaleido_fast.kernels.softmax_kl import softmax_kl, softmax_kl_reference
from tests.kernels.far_memory import far_rows
from tests.kernels.guards import Guards
from tests.kernels.interpreter import interpreted
from tests.kernels.mutations import Break, assert_caught
from tests.kernels.sanitizer import sanitized
from tests.kernels.traffic import recorded

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of inf - inf
FP32, BF16, FP16 = torch.float32, torch.bfloat16, torch.float16
INF, NAN = math.inf, math.nan


@pytest.fixture(scope="module")
def twin() -> ModuleType:
    return interpreted("softmax_kl_triton")


def batch(
    rows: int, features: int, prediction_dtype: torch.dtype = FP32, target_dtype: torch.dtype = FP32
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows * 10000 + features)
    prediction, target = 2 * torch.randn(2, rows, features, generator=generator)
    return prediction.to(prediction_dtype), target.to(target_dtype), torch.rand(rows, generator=generator)


def assert_right(twin: ModuleType, prediction: Tensor, target: Tensor, weight: Tensor) -> None:
    """Against the reference in float64, in bounds, every output element written.

    A bf16 gradient may be off by one ulp, at most 2^-7 of the value: the interpreter truncates where a GPU rounds.
    """
    with Guards() as guards:
        loss, gradient = twin.softmax_kl_triton(*(guards.place(x) for x in (prediction, target, weight)))
    true_loss, _ = softmax_kl_reference(prediction.double(), target.double(), weight)
    leaf = prediction.double().requires_grad_()
    softmax = leaf.log_softmax(dim=1), target.double().log_softmax(dim=1)
    kl = torch.nn.functional.kl_div(*softmax, log_target=True, reduction="none").sum(dim=1)
    (true_gradient,) = torch.autograd.grad((kl * weight).sum(), leaf)
    reference = softmax_kl_reference(prediction, target, weight)
    for found, expected in zip((loss, gradient), reference, strict=True):
        assert (found.dtype, found.shape, found.stride()) == (expected.dtype, expected.shape, expected.stride())
    assert_near(loss, true_loss, 0)
    assert_near(gradient, true_gradient, {FP32: 0, BF16: 2**-7, FP16: 2**-10}[gradient.dtype])


def assert_near(found: Tensor, truth: Tensor, rounding: float) -> None:
    smallest = torch.finfo(found.dtype).smallest_normal * torch.finfo(found.dtype).eps
    bound = rounding * truth.abs() + 1e-5 * truth.abs().max() + smallest
    assert ((found.double() - truth).abs() <= bound).all()


@pytest.mark.parametrize("rows, features, prediction_dtype, target_dtype", [
    (1, 1, FP32, FP32),
    (3, 2, FP32, FP32),  # a program of 1,024 rows
    (5, 7, BF16, BF16),
    (9, 192, BF16, FP32),  # eight rows a program, the second has one; autocast's dtypes
    (8, 192, FP32, BF16),
    (5, 1001, BF16, BF16),
    (3, 2048, BF16, BF16),
    (2, 2040, FP16, FP32),
    (2, 2056, FP32, FP32),  # a tile of twice the values
    (1, 8192, FP32, FP32),
])
def test_loss_and_gradient(
    twin: ModuleType, rows: int, features: int, prediction_dtype: torch.dtype, target_dtype: torch.dtype
) -> None:
    assert_right(twin, *batch(rows, features, prediction_dtype, target_dtype))


EXTREME = [  # prediction, target
    ([1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]),
    ([-1e30, 1e30, 0.0], [1e30, -1e30, 0.0]),
    ([3e38, 0.0, -3e38], [-3e38, 0.0, 3e38]),  # a loss beyond fp32
    ([0.0, 0.0, 0.0], [7.0, 7.0, 7.0]),
    ([0.0, 0.0, -INF], [0.0, 0.0, -INF]),
    ([0.0, 0.0, 0.0], [0.0, 0.0, -INF]),
    ([0.0, -INF, 0.0], [0.0, 0.0, -INF]),  # an infinite loss
    ([INF, 0.0, 1.0], [0.0, 1.0, 2.0]),
    ([0.0, 1.0, 2.0], [0.0, INF, 2.0]),
    ([NAN, 0.0, 1.0], [0.0, 1.0, 2.0]),
    ([0.0, 1.0, 2.0], [0.0, NAN, 2.0]),
    ([-INF, -INF, -INF], [0.0, 1.0, 2.0]),
    ([0.0, 1.0, 2.0], [-INF, -INF, -INF]),
    ([2.0, 1.0, 0.5], [0.0, 1.0, 2.0]),  # an ordinary one last: nothing leaks into it
]


@pytest.mark.parametrize("weight", [1.5, 0.0, -0.0, NAN])
def test_extreme_rows_are_as_the_reference_has_them(twin: ModuleType, weight: float) -> None:
    prediction, target = torch.tensor(EXTREME).unbind(dim=1)
    weights = torch.full((len(EXTREME),), weight)
    found = twin.softmax_kl_triton(prediction, target, weights)
    expected = softmax_kl_reference(prediction, target, weights)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7, equal_nan=True)
    if weight == 1.5:
        assert expected[0].isnan().sum() == 6 and expected[0].isinf().sum() == 2


def test_equal_distributions_lose_nothing_wherever_their_logits_lie(twin: ModuleType) -> None:
    logits = torch.tensor([[1.0, 2.0, 4.0, 0.5, -3.0], [0.0] * 5, [1e4] * 5])
    loss, gradient = twin.softmax_kl_triton(logits + torch.tensor([[64.0], [-3.0], [8.0]]), logits, torch.ones(3))
    assert loss.tolist() == [0, 0, 0] and not gradient.any()


@pytest.mark.parametrize("shape", [(0, 192), (3, 0)])
def test_no_rows_and_no_features(twin: ModuleType, shape: tuple[int, int]) -> None:
    arguments = torch.zeros(shape), torch.zeros(shape), torch.ones(shape[0])
    for found, expected in zip(twin.softmax_kl_triton(*arguments), softmax_kl_reference(*arguments), strict=True):
        assert torch.equal(found, expected) and found.dtype == expected.dtype


def test_rows_apart_turned_repeated_and_half_precision_weights(twin: ModuleType) -> None:
    prediction, target, weight = batch(6, 24)
    assert_right(twin, torch.cat((prediction, target), dim=1)[:, :24], target, weight)
    assert_right(twin, torch.cat((prediction, target), dim=1)[:, 3:27], target, weight)
    assert_right(twin, prediction.T.contiguous().T, target[:, ::2].repeat_interleave(2, dim=1), weight)
    assert_right(twin, prediction, target[:1].expand(6, 24), weight[:, None].expand(6, 2)[:, 0].half())


def test_rows_more_than_two_to_the_31_values_apart(twin: ModuleType) -> None:
    prediction, target, weight = batch(2, 40, BF16, BF16)
    expected = twin.softmax_kl_triton(prediction, target, weight)
    with far_rows(prediction, 2**31 + 8) as far_prediction, far_rows(target, 2**31 + 64) as far_target, Guards():
        found = twin.softmax_kl_triton(far_prediction, far_target, weight)
    assert all(torch.equal(x, y) for x, y in zip(found, expected, strict=True))


@pytest.mark.parametrize("rows, features", [(5, 2048), (24, 192), (2, 8192)])
def test_each_logit_is_read_once_and_the_gradient_written_once(twin: ModuleType, rows: int, features: int) -> None:
    prediction, target, weight = batch(rows, features, BF16, BF16)
    with recorded() as traffic:
        twin.softmax_kl_triton(prediction, target, weight)
    once = rows * features * 2
    assert traffic.reads["prediction_ptr"] == traffic.reads["target_ptr"] == traffic.writes["gradient_ptr"] == once
    assert traffic.reads.total() + traffic.writes.total() <= 1.05 * 3 * once


@pytest.mark.parametrize("rows, features", [(9, 192), (3, 2040), (1, 5)])
def test_the_sanitizer_finds_nothing_out_of_bounds(twin: ModuleType, rows: int, features: int) -> None:
    pytest.importorskip("triton_viz", reason="triton-viz belongs to the test extra, not to a machine with torch alone")
    with sanitized(twin, "_softmax_kl_kernel") as violations:
        twin.softmax_kl_triton(*batch(rows, features))
    assert violations == []


def test_a_program_has_the_values_it_was_sized_for() -> None:
    for features in (1, 5, 192, 768, 2048, 2049, 4096, 8192):
        _, options = real.launch(7, features)
        assert options["ROWS"] * options["BLOCK"] == 512 * options["num_warps"] and options["BLOCK"] >= features


def test_it_is_the_operator_on_a_gpu() -> None:
    assert torch._C._dispatch_has_kernel_for_dispatch_key("kaleido_fast::softmax_kl", "CUDA")


def test_messages(twin: ModuleType) -> None:
    with pytest.raises(ValueError, match="^softmax_kl: logits of 8,193 features, on a GPU at most 8,192; call"):
        twin.softmax_kl_triton(*batch(1, 8193))
    double = batch(2, 4, torch.float64)
    with pytest.raises(ValueError, match="^softmax_kl: prediction torch.float64, target torch.float32 and weight"):
        twin.softmax_kl_triton(*double)


BREAKS = [
    Break("a row too many", "(row < num_rows) & (feature < FEATURES)", "(row <= num_rows) & (feature < FEATURES)"),
    Break("no maximum taken off", "x -= tl.max(x, axis=1, keep_dims=True)", "x -= 0.0"),
    Break("zero log zero", "terms = tl.where(p == 0, p, terms)", "terms = terms"),
    Break("weight zero", "gradient = tl.where(weight == 0, 0, weight * (q - p))", "gradient = weight * (q - p)"),
    Break("sign", "weight * (q - p))", "weight * (p - q))"),
    Break("the target's sum for both", "q * (1 / sum_q)", "q * (1 / sum_p)"),
    Break("one stride for both", "target_ptr + row * target_units", "target_ptr + row * prediction_units"),
    Break("int32 rows", "tl.program_id(0).to(tl.int64)", "tl.program_id(0)"),
]


@pytest.mark.slow
def test_every_break_is_caught(tmp_path: Path) -> None:
    def check(twin: ModuleType) -> None:
        assert_right(twin, *batch(9, 192, BF16, FP32))
        test_extreme_rows_are_as_the_reference_has_them(twin, 1.5)
        test_extreme_rows_are_as_the_reference_has_them(twin, 0.0)
        test_rows_apart_turned_repeated_and_half_precision_weights(twin)
        test_rows_more_than_two_to_the_31_values_apart(twin)

    assert_caught("softmax_kl_triton", BREAKS, check, tmp_path)


@pytest.mark.gpu
class TestOnDevice:
    @pytest.mark.parametrize("rows, features, prediction_dtype, target_dtype", [
        (1, 1, FP32, FP32), (9, 192, BF16, FP32), (1000, 1001, BF16, BF16), (4099, 2048, BF16, BF16),
        (513, 2040, FP16, FP32), (65, 8192, FP32, FP32),
    ])
    def test_loss_and_gradient(
        self, rows: int, features: int, prediction_dtype: torch.dtype, target_dtype: torch.dtype
    ) -> None:
        prediction, target, weight = batch(rows, features, prediction_dtype, target_dtype)
        leaf = prediction.cuda().requires_grad_()
        loss = softmax_kl(leaf, target.cuda(), weight.cuda())
        loss.sum().backward()
        true_loss, true_gradient = softmax_kl_reference(prediction.double(), target.double(), weight)
        assert_near(loss.detach().cpu(), true_loss, 0)
        assert_near(leaf.grad.cpu(), true_gradient, {FP32: 0, BF16: 2**-8, FP16: 2**-11}[prediction_dtype])

    def test_extreme_rows(self) -> None:
        prediction, target = torch.tensor(EXTREME).unbind(dim=1)
        for weight in (1.5, 0.0, NAN):
            arguments = prediction, target, torch.full((len(EXTREME),), weight)
            found = [x.cpu() for x in real.softmax_kl_triton(*(x.cuda() for x in arguments))]
            expected = list(softmax_kl_reference(*arguments))
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6, equal_nan=True)

    def test_rows_beyond_two_to_the_31_values(self) -> None:
        prediction, target, weight = (x.cuda() for x in batch(2, 40, BF16, BF16))
        far = torch.empty(2**31 + 48, dtype=BF16, device="cuda").as_strided((2, 40), (2**31 + 8, 1)).copy_(prediction)
        expected = real.softmax_kl_triton(prediction, target, weight)
        assert all(torch.equal(x, y) for x, y in zip(real.softmax_kl_triton(far, target, weight), expected, strict=True))

    def test_operator_and_compiler(self) -> None:
        prediction, target, weight = (x.cuda() for x in batch(33, 192, BF16, FP32))
        torch.library.opcheck(torch.ops.kaleido_fast.softmax_kl.default, (prediction.requires_grad_(), target, weight))
        compiled = torch.compile(softmax_kl, fullgraph=True)(prediction, target, weight)
        assert torch.equal(compiled, softmax_kl(prediction, target, weight))

    def test_autocast_casts_nothing(self) -> None:
        prediction, target, weight = (x.cuda() for x in batch(33, 192))
        with torch.autocast("cuda", BF16):
            loss = softmax_kl(prediction, target, weight)
        assert loss.dtype == FP32 and torch.equal(loss, softmax_kl(prediction, target, weight))

    def test_graph_replays(self) -> None:
        prediction, target, weight = (x.cuda() for x in batch(33, 192, BF16, BF16))
        softmax_kl(prediction, target, weight)  # compiles
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = softmax_kl(prediction, target, weight)
        prediction.neg_()
        graph.replay()
        assert torch.equal(loss, softmax_kl(prediction, target, weight))
