"""Under bf16 all that lies between layers is bf16, and norms compute in fp32: on both ways to bf16, eager and compiled."""

from collections.abc import Iterator
from contextlib import AbstractContextManager

import pytest
import torch
from torch import Tensor, nn

from kaleido_fast.model.encoder import Encoder
from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from kaleido_fast.model.precision import LayerNorm, product_dtype
from kaleido_fast.model.settings import KaleidoSettings, ModelSettings, VocabularySettings

BF16 = torch.bfloat16
HIDDEN, INNER, HEADS, LAYERS = 32, 72, 4, 2
LENGTHS = (40, 7, 33)
ROWS = sum(LENGTHS)
WAYS = ("autocast", "bf16 weights")


@pytest.fixture(autouse=True)
def norms_as_on_cuda() -> Iterator[None]:
    """Autocast's rule on CUDA, which a CPU does not have: torch's LayerNorm computes in fp32 and returns it."""
    def wide(*given: object) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return torch.layer_norm(*(x.float() if isinstance(x, Tensor) else x for x in given))

    rule = torch.library.Library("aten", "IMPL")
    rule.impl("layer_norm", wide, "AutocastCPU")
    with torch.autocast("cpu", BF16):
        assert nn.LayerNorm(8)(torch.zeros(2, 8, dtype=BF16)).dtype == torch.float32
    yield
    rule._destroy()


def encoder_of(way: str, dropout: float = 0.0) -> Encoder:
    torch.manual_seed(0)
    encoder = Encoder(ModelSettings(
        hidden=HIDDEN, layers=LAYERS, heads=HEADS, intermediate=INNER, dropout=dropout, attention="sdpa"))
    return encoder.to(BF16) if way == "bf16 weights" else encoder


def autocast(way: str) -> AbstractContextManager[object]:
    return torch.autocast("cpu", BF16, enabled=way == "autocast")


def run(encoder: Encoder, way: str) -> Tensor:
    torch.manual_seed(1)
    x = torch.randn(ROWS, HIDDEN).to(BF16).requires_grad_()
    with autocast(way):
        return encoder(x, torch.tensor([0, *LENGTHS]).cumsum(0).int(), LENGTHS)


def saved_a_row(encoder: Encoder, way: str) -> dict[torch.dtype, int]:
    """Numbers a row and layer that a forward keeps for the backward, by dtype; a storage counts once."""
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.is_floating_point() and tensor.numel() and tensor.untyped_storage().nbytes() >= ROWS * tensor.itemsize:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = run(encoder, way)
    assert out.dtype == BF16
    parameters = {parameter.untyped_storage().data_ptr() for parameter in encoder.parameters()}
    counts: dict[torch.dtype, int] = {}
    for place, tensor in kept.items():
        numbers = tensor.untyped_storage().nbytes() // tensor.itemsize
        if place not in parameters and ROWS in tensor.shape:
            counts[tensor.dtype] = counts.get(tensor.dtype, 0) + numbers
    return {dtype: round(count / ROWS / LAYERS) for dtype, count in counts.items()}


@pytest.mark.parametrize("way", WAYS)
def test_what_is_kept_a_row_is_bf16(way: str) -> None:
    """A layer's input, q k v, the attention's output, two sums before norms, the norm between, and the inner width twice; in
    fp32 the softmax's sums a head, and two norms' mean and scale."""
    assert saved_a_row(encoder_of(way), way) == {BF16: 8 * HIDDEN + 2 * INNER, torch.float32: HEADS + 4}


@pytest.fixture
def fresh() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("way", WAYS)
def test_what_a_compiled_layer_keeps_a_row_is_bf16(fresh: None, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Cut in two as inductor cuts it; what is cheap to make again it does not keep."""
    monkeypatch.setattr("kaleido_fast.model.encoder.BACKEND", "aot_eager_decomp_partition")
    encoder = encoder_of(way)
    encoder.compile_layers()
    kept = saved_a_row(encoder, way)
    assert kept[BF16] <= 8 * HIDDEN + 2 * INNER and kept[torch.float32] <= HEADS + 4, kept


@pytest.mark.parametrize("way", WAYS)
def test_every_layer_takes_and_gives_bf16(way: str) -> None:
    """And so do the gradients between them."""
    seen, encoder = [], encoder_of(way, dropout=0.1)
    for layer in encoder.layers:
        layer.register_forward_hook(lambda module, inputs, out: seen.extend((inputs[0].dtype, out.dtype)))
        layer.register_full_backward_hook(lambda module, given, incoming: seen.extend((given[0].dtype, incoming[0].dtype)))
    run(encoder, way).float().square().sum().backward()
    assert seen == [BF16] * 4 * LAYERS
    assert all(parameter.grad.dtype == parameter.dtype for parameter in encoder.parameters())


@pytest.mark.parametrize("way", WAYS)
def test_the_encoder_is_handed_bf16(way: str) -> None:
    """By embed, whose tables are fp32 under autocast; and what the heads read is what it gives."""
    settings = ModelSettings(hidden=HIDDEN, layers=1, heads=HEADS, intermediate=INNER)
    model = KaleidoBertModel(settings, KaleidoSettings(patch_size=8), VocabularySettings(100, 128), 60).eval()
    model = model.to(BF16) if way == "bf16 weights" else model
    seen: list[Tensor] = []
    model.encoder.register_forward_hook(lambda module, inputs, out: seen.extend((inputs[0], out)))
    tokens, lengths = torch.randint(0, 100, (2, 7), dtype=torch.int32), torch.tensor([7, 4], dtype=torch.int32)
    with autocast(way):
        encoded = model.encode(tokens, lengths, lengths.tolist(), torch.zeros(0, 55, 192), torch.zeros(2, 0, dtype=torch.int32),
                               levels=())
    assert [tensor.dtype for tensor in (*seen, encoded.sequence, encoded.pooled)] == [BF16] * 4
    assert model.embeddings.word.weight.dtype == (torch.float32 if way == "autocast" else BF16)


@pytest.mark.parametrize("weights", [torch.float32, BF16])
@pytest.mark.parametrize("way", WAYS)
def test_the_norm_rounds_once(way: str, weights: torch.dtype) -> None:
    """Its output and its input's gradient are the truth's to half a unit; its weights' gradients, sums over rows, to a
    hundredth of one."""
    generator = torch.Generator().manual_seed(0)
    norm, (x, dout) = LayerNorm(48, eps=1e-12), torch.randn(2, 200, 48, generator=generator)
    nn.init.normal_(norm.weight, 1, 0.3, generator=generator), nn.init.normal_(norm.bias, generator=generator)
    norm, x, dout = norm.to(weights), (3 * x + 2).to(BF16).requires_grad_(), dout.to(BF16)
    with autocast(way):
        out = norm(x)
    found = [out, *torch.autograd.grad(out, (x, norm.weight, norm.bias), dout)]
    true = nn.LayerNorm(48, eps=1e-12).double()
    true.load_state_dict(norm.state_dict())
    wide = x.detach().double().requires_grad_()
    truth = true(wide)
    truths = [truth, *torch.autograd.grad(truth, (wide, true.weight, true.bias), dout.double())]
    for ours, theirs, dtype in zip(found, truths, (BF16, BF16, weights, weights), strict=True):
        assert ours.dtype == dtype
        half = torch.finfo(BF16).eps / 2 if dtype == BF16 else 1e-5
        bound = half * theirs.abs() + 1e-6 * theirs.abs().max()
        assert ((ours.double() - theirs).abs() <= bound).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_in_full_precision_it_is_torchs(dtype: torch.dtype) -> None:
    ours, theirs, x = LayerNorm(16).to(dtype), nn.LayerNorm(16).to(dtype), torch.randn(5, 16, dtype=dtype)
    assert torch.equal(ours(x), theirs(x)) and ours(x).dtype == dtype


def test_products_have_autocasts_dtype() -> None:
    x = torch.zeros(1)
    assert product_dtype(x) == torch.float32 and product_dtype(x.bfloat16()) == BF16
    with torch.autocast("cpu", BF16):
        assert product_dtype(x) == BF16 and product_dtype(x.double()) == torch.float64
        assert (x[None] @ x[:, None]).dtype == BF16
