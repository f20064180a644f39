"""Attention over a packed sequence: against plain padded attention, as an operator, and what is refused."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kaleido_fast.kernels import attend
from kaleido_fast.model.attention import packed
from kaleido_fast.model.attention.packed import attention_kernels, packed_attention, pick_attention
from kaleido_fast.model.encoder import Encoder
from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from kaleido_fast.model.settings import KaleidoSettings, ModelSettings, VocabularySettings
from tests.kernels.interpreter import interpreted

LENGTHS = (7, 1, 12, 4)
CUMULATIVE = torch.tensor([0, *LENGTHS]).cumsum(0).int()
TOTAL, LONGEST = sum(LENGTHS), max(LENGTHS)


def drawn(dtype: torch.dtype, rest: int = 0, size: int = 5) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(TOTAL + rest, 3, 2, size, dtype=dtype, requires_grad=True)


def by_sdpa(query_key_value: Tensor, **options: float) -> Tensor:
    return packed_attention(query_key_value, CUMULATIVE, LONGEST, LENGTHS, implementation="sdpa", **options)


def padded_attention(query_key_value: Tensor) -> Tensor:
    """With a mask over padding; (TOTAL, A, D)."""
    parts = [torch.nn.functional.pad(part, (0, 0, 0, 0, 0, 0, 0, LONGEST - len(part)))
             for part in query_key_value[:TOTAL].split(LENGTHS)]
    query, key, value = torch.stack(parts).permute(2, 0, 3, 1, 4)
    scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
    inside = torch.arange(LONGEST) < torch.tensor(LENGTHS)[:, None]
    weights = scores.masked_fill(~inside[:, None, None], float("-inf")).softmax(-1)
    return torch.cat([o[:n] for o, n in zip((weights @ value).transpose(1, 2), LENGTHS, strict=True)])


@pytest.mark.parametrize("path", ["operator", "split"])
def test_equals_padded_attention_in_float64(path: str) -> None:
    given = drawn(torch.float64, rest=3)
    attended = (by_sdpa(given) if path == "operator" else packed._sdpa(given, LENGTHS, 0.0))[:TOTAL]
    expected = padded_attention(given)
    torch.testing.assert_close(attended, expected, rtol=1e-12, atol=1e-12)
    incoming = torch.randn_like(expected)
    ours, theirs = (torch.autograd.grad((out * incoming).sum(), given)[0] for out in (attended, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    assert ours[:TOTAL].any() and not ours[TOTAL:].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_operator_gives_the_bits_of_a_call_a_sample(dtype: torch.dtype) -> None:
    given, incoming = drawn(dtype, size=16), torch.randn(TOTAL, 2, 16).to(dtype)
    ours, theirs = by_sdpa(given), packed._sdpa(given, LENGTHS, 0.0)
    assert torch.equal(ours, theirs)
    assert torch.equal(*(torch.autograd.grad(out, given, incoming)[0] for out in (ours, theirs)))


def test_the_operator_is_well_made() -> None:
    torch.library.opcheck(packed._packed_attention_op, (drawn(torch.float32), CUMULATIVE, LONGEST))


def test_a_gradient_that_is_spread_out_is_taken() -> None:
    """A sum's gradient is one number everywhere, without memory of its own."""
    given = drawn(torch.float64)
    ours, theirs = (torch.autograd.grad(out.sum(), given)[0] for out in (by_sdpa(given), padded_attention(given)))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_dropout_is_on_the_probabilities() -> None:
    torch.manual_seed(1)
    given = torch.ones(TOTAL, 3, 2, 4)
    out = by_sdpa(given, dropout=0.5)
    assert 0.7 < float(out.mean()) < 1.3 and float(out[7].max()) in (0.0, 2.0)  # row 7 is a sample of one


@pytest.mark.parametrize(
    ("implementation", "message"),
    [("varlen", "varlen needs a CUDA device, found cpu; set model.attention=auto"),
     ("triton", "triton needs a CUDA device, found cpu; set model.attention=auto"),
     ("xformers", "xformers needs a CUDA device, found cpu; set model.attention=auto"), ("flash", "unknown; use sdpa, ")],
)
def test_what_attention_cannot_do_is_said(implementation: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        packed_attention(drawn(torch.float32), CUMULATIVE, LONGEST, LENGTHS, implementation=implementation)


def test_triton_says_what_it_has_no_kernel_for() -> None:
    cuda = torch.device("cuda")
    assert attention_kernels("triton", cuda, torch.bfloat16, 12, 64, 0.0) == "attend (Triton), at most 512 rows a sample"
    with pytest.raises(ValueError, match="triton has kernels for heads of 32, 64, 128, found 48; set another model.heads"):
        attention_kernels("triton", cuda, torch.bfloat16, 12, 48, 0.0)
    with pytest.raises(ValueError, match="triton has no dropout, found 0.1; set model.attention_dropout=0"):
        attention_kernels("triton", cuda, torch.bfloat16, 12, 64, 0.1)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of rows past a sample's end
def test_layers_trained_by_our_kernels_are_those_by_sdpa(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two layers, three steps; the kernels interpreted in place of the operator's reference."""
    monkeypatch.setattr(packed, "ON_CUDA", ())
    called: list[str] = []
    for name, file in (("attend", "attend_triton"), ("attend_backward", "attend_backward_triton")):
        launch = getattr(interpreted(file), f"{name}_triton")

        def launched(*given: object, name: str = name, launch: Callable = launch) -> object:
            called.append(name)
            return launch(*given)

        monkeypatch.setattr(attend, f"{name}_reference", launched)
    lengths = (5, 9)
    x, wanted = torch.randn(2, sum(lengths), 64, generator=torch.Generator().manual_seed(0))
    trained = []
    for attention in ("sdpa", "triton"):
        torch.manual_seed(1)
        encoder = Encoder(ModelSettings(hidden=64, layers=2, heads=2, intermediate=32, dropout=0.0, attention=attention))
        optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1)
        for _ in range(3):
            loss = (encoder(x, torch.tensor([0, 5, 14], dtype=torch.int32), lengths) - wanted).square().mean()
            optimizer.zero_grad(), loss.backward(), optimizer.step()
        trained.append(torch.cat([parameter.detach().flatten() for parameter in encoder.parameters()]))
    assert called.count("attend") == called.count("attend_backward") == 6
    torch.testing.assert_close(*trained, rtol=1e-5, atol=1e-6)


def test_the_kernels_are_named() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert attention_kernels("sdpa", cpu, torch.float32, 2, 16, 0.0) == "torch flash attention for CPU"
    assert attention_kernels("sdpa", cpu, torch.float32, 2, 16, 0.1) == "torch sdpa"
    assert attention_kernels("varlen", cuda, torch.bfloat16, 2, 16, 0.0) == "torch varlen_attn"


@pytest.mark.parametrize(("lacks_xformers", "dtype", "size", "dropout", "capability", "name", "why"), [
    ("", torch.float32, 64, 0.1, (7, 5), "xformers", ""),
    ("xformers is not installed", torch.bfloat16, 64, 0.0, (9, 0), "varlen", "xformers is not installed"),
    ("no kernel", torch.float32, 64, 0.0, (9, 0), "sdpa", "no kernel; varlen computes in 16 bit, not in torch.float32"),
    ("no kernel", torch.bfloat16, 64, 0.1, (9, 0), "sdpa", "no kernel; varlen has no dropout"),
    ("no kernel", torch.bfloat16, 60, 0.0, (9, 0), "sdpa", "no kernel; varlen has no heads of 60"),
    ("no kernel", torch.bfloat16, 64, 0.0, (7, 5), "sdpa", "no kernel; varlen has no kernel for compute capability 7.5"),
])
def test_auto_is_the_best_way_that_is_there(
    monkeypatch: pytest.MonkeyPatch, lacks_xformers: str, dtype: torch.dtype, size: int, dropout: float,
    capability: tuple[int, int], name: str, why: str,
) -> None:
    monkeypatch.setattr("kaleido_fast.model.attention.xformers_attention.lacking", lambda *_: lacks_xformers)
    monkeypatch.setattr("kaleido_fast.model.attention.packed.attention_kernels", lambda name, *_: f"{name}'s kernels")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    picked = pick_attention("auto", torch.device("cuda"), dtype, 2, size, dropout)
    assert (picked.name, picked.kernels, picked.why_no_other) == (name, f"{name}'s kernels", why)
    assert str(picked) == f"{name}, {name}'s kernels" + (f" ({why})" if why else "")


def test_auto_on_a_cpu_and_what_was_asked_for_by_name() -> None:
    picked = pick_attention("auto", torch.device("cpu"), torch.float32, 2, 16, 0.0)
    assert str(picked) == "sdpa, torch flash attention for CPU"
    assert pick_attention("varlen", torch.device("cuda"), torch.bfloat16, 2, 16, 0.0).name == "varlen"
    with pytest.raises(ValueError, match="xformers"):
        pick_attention("xformers", torch.device("cpu"), torch.float32, 2, 16, 0.0)


def test_a_model_attends_by_what_was_picked() -> None:
    """Under `auto` it begins with what every device has, and weights are kept with what was picked."""
    model = KaleidoBertModel(ModelSettings(hidden=16, layers=2, heads=2, intermediate=16), KaleidoSettings(patch_size=8),
                             VocabularySettings(size=20, padded_size=64), image_size=60)
    assert model.settings.attention == "sdpa" and ModelSettings().attention == "auto"
    picked = model.attend_by("auto", torch.device("cpu"), "fp32")
    assert picked.name == "sdpa" and {layer.settings.attention for layer in model.encoder.layers} == {"sdpa"}
    model.attend_by("varlen", torch.device("cuda"), "bf16")
    assert {layer.settings.attention for layer in model.encoder.layers} == {"varlen"} == {model.settings.attention}
