"""Attention over a packed sequence, block-diagonal by sample (SPEC 7): one function, several ways.

softmax(q k^T / sqrt(D)) v inside each sample; no padding, no mask. The operator `kaleido_fast::packed_attention` is, on a
CPU, a call of torch's flash attention a sample (the fastest of the ways compared, and the truth for others) and, on CUDA,
xformers' memory-efficient attention (xformers_attention.py); torch.compile takes it into its graph. Softmax in fp32, in float64
where the input is float64.

Shapes: N packed rows, B samples, A heads, D width of a head.
"""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from kaleido_fast.kernels.attend import attend
from kaleido_fast.kernels.attend_triton import MOST_KEYS, WIDTHS
from kaleido_fast.model.attention import xformers_attention
from kaleido_fast.model.settings import Attention

flash_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default
HEADS_FIRST = (1, 2, 0, 3)  # (L, 3, A, D) -> (3, A, L, D)
AUTO: Final = "auto"
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
ON_CUDA = ("triton", "varlen", "xformers")  # what no CPU has
VARLEN_MOST, VARLEN_SINCE = 256, (8, 0)  # widest head, and least compute capability, of flash attention


@dataclass(frozen=True, slots=True)
class PickedAttention:
    """What attention is computed by."""

    name: Attention  # never "auto"
    kernels: str
    why_no_other: str = ""  # what kept `auto` from the ways before this one

    def __str__(self) -> str:
        return f"{self.name}, {self.kernels}{f' ({self.why_no_other})' if self.why_no_other else ''}"


def packed_attention(
    query_key_value: Tensor, cumulative: Tensor, longest: int, lengths: Sequence[int], *, implementation: str,
    dropout: float = 0.0,
) -> Tensor:
    """Attention of each sample with itself.

    Args:
        query_key_value: (N, 3, A, D), samples end to end.
        cumulative: (B + 1,) int32, where samples begin; on the tensor's device.
        longest: length of the longest sample.
        lengths: of the samples, on the host; read by "sdpa" alone, on CUDA or with dropout.
        implementation: "sdpa", a call a sample; "varlen", torch's variable-length flash attention (CUDA, 16 bit, no
            dropout); "xformers", memory-efficient attention (CUDA); "triton", our own kernels (CUDA, heads of 32, 64 or 128,
            samples of up to 512 rows, no dropout; rows past the last sample are 0).
        dropout: rate on the attention probabilities; 0 outside training.
    Returns:
        (N, A, D); rows past the last sample's end hold anything.
    Raises:
        ValueError: an implementation that is unknown or cannot do what is asked.
    """
    if implementation not in ("sdpa", "triton", "varlen", "xformers"):
        raise ValueError(f"attention={implementation}: unknown; use sdpa, triton, varlen or xformers")
    if implementation in ON_CUDA and not query_key_value.is_cuda:
        raise ValueError(f"attention={implementation} needs a CUDA device, found {query_key_value.device}; "
                         "set model.attention=auto")
    if implementation == "varlen":
        return _varlen(query_key_value, cumulative, longest, dropout)
    if implementation == "triton":
        if dropout:
            raise ValueError(_no_dropout("triton", dropout))
        heads = query_key_value.shape[2]
        return attend(query_key_value.flatten(1), cumulative, heads=heads, longest=longest).unflatten(1, (heads, -1))
    if implementation == "xformers" and dropout:
        return xformers_attention.with_dropout(query_key_value, cumulative, longest, dropout)
    if implementation == "sdpa" and (dropout or query_key_value.is_cuda):
        return _sdpa(query_key_value, lengths, dropout)
    return _packed_attention_op(query_key_value, cumulative, longest)[0]


def attention_kernels(
    implementation: str, device: torch.device, dtype: torch.dtype, heads: int, size: int, dropout: float
) -> str:
    """The kernels that will run, by name.

    Args:
        dtype: of the products, under autocast the narrower one; size: width of a head.
    Raises:
        ValueError: xformers or our own are asked for and have none for this.
    """
    if implementation == "triton":
        if size not in WIDTHS:
            raise ValueError(f"attention=triton has kernels for heads of {', '.join(map(str, WIDTHS))}, found {size}; set "
                             "another model.heads, or model.attention=auto")
        if dropout:
            raise ValueError(_no_dropout("triton", dropout))
        return f"attend (Triton), at most {MOST_KEYS} rows a sample"
    if implementation == "xformers":
        kernels = xformers_attention.kernels(device, dtype, heads, size, dropout)
        return f"{kernels.forward.NAME}, {kernels.backward.NAME}"
    if implementation == "varlen":
        return "torch varlen_attn"
    return "torch sdpa" if dropout or device.type == "cuda" else "torch flash attention for CPU"


def pick_attention(
    asked: Attention, device: torch.device, dtype: torch.dtype, heads: int, size: int, dropout: float
) -> PickedAttention:
    """What `asked` comes to: itself, or under `auto` the best way that is there.

    On CUDA that is a single call for all samples, by xformers or, in 16 bit without dropout, by torch's varlen; "sdpa", a call
    a sample and layer, is what is left. On a CPU it is "sdpa".

    Args:
        As of `attention_kernels`.
    Raises:
        ValueError: xformers is asked for and has no kernels for this.
    """
    if asked != AUTO:
        return PickedAttention(asked, attention_kernels(asked, device, dtype, heads, size, dropout))
    ways: dict[Attention, Callable[..., str]] = {"xformers": xformers_attention.lacking, "varlen": _lacks_varlen}
    reasons: list[str] = []
    for name, lacking in ways.items() if device.type == "cuda" else ():
        reason = lacking(device, dtype, heads, size, dropout)
        if not reason:
            return PickedAttention(name, attention_kernels(name, device, dtype, heads, size, dropout), "; ".join(reasons))
        reasons.append(reason)
    return PickedAttention("sdpa", attention_kernels("sdpa", device, dtype, heads, size, dropout), "; ".join(reasons))


def _lacks_varlen(device: torch.device, dtype: torch.dtype, heads: int, size: int, dropout: float) -> str:
    """Why varlen cannot run; empty where it can."""
    if dtype not in (torch.bfloat16, torch.float16):
        return f"varlen computes in 16 bit, not in {dtype}"
    if dropout:
        return "varlen has no dropout"
    if importlib.util.find_spec("torch.nn.attention.varlen") is None:
        return f"torch {torch.__version__} has no varlen"
    if size % 8 or size > VARLEN_MOST:
        return f"varlen has no heads of {size}"
    capability = torch.cuda.get_device_capability(device)
    return "" if capability >= VARLEN_SINCE else f"varlen has no kernel for compute capability {capability[0]}.{capability[1]}"


def _sdpa(query_key_value: Tensor, lengths: Sequence[int], dropout: float) -> Tensor:
    rest = len(query_key_value) - sum(lengths)
    sizes = [*lengths, rest] if rest else list(lengths)
    out = []
    # split, not indexing: the backward of x[a:b] fills a tensor of the whole size for every sample
    for part in query_key_value.split(sizes):
        query, key, value = part.permute(HEADS_FIRST)[:, None].unbind(0)
        out.append(scaled_dot_product_attention(query, key, value, dropout_p=dropout)[0].transpose(0, 1))
    return torch.cat(out)


def _no_dropout(implementation: str, dropout: float) -> str:
    return f"attention={implementation} has no dropout, found {dropout}; set model.attention_dropout=0"


def _varlen(query_key_value: Tensor, cumulative: Tensor, longest: int, dropout: float) -> Tensor:
    if dropout:
        raise ValueError(_no_dropout("varlen", dropout))
    from torch.nn.attention.varlen import varlen_attn

    query, key, value = query_key_value.unbind(1)
    out = varlen_attn(query, key, value, cumulative, cumulative, longest, longest)
    assert isinstance(out, Tensor)  # the log sums are not asked for
    return out


@torch.library.custom_op("kaleido_fast::packed_attention", mutates_args=(), device_types="cpu")
def _packed_attention_op(query_key_value: Tensor, cumulative: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """Outputs, and what the backward needs of the softmax: on a CPU its logarithms' sums (N, A)."""
    rows, _, heads, size = query_key_value.shape
    out = query_key_value.new_zeros(rows, heads, size)
    sums = out.new_zeros(rows, heads, dtype=torch.promote_types(out.dtype, torch.float32))
    for sequence in _samples(cumulative):
        part, part_sums = flash_forward(*query_key_value[sequence].permute(HEADS_FIRST)[:, None].unbind(0))
        out[sequence], sums[sequence] = part[0].transpose(0, 1), part_sums[0].transpose(0, 1)
    return out, sums


@torch.library.custom_op("kaleido_fast::packed_attention_backward", mutates_args=(), device_types="cpu")
def _packed_attention_backward_op(
    gradient: Tensor, query_key_value: Tensor, cumulative: Tensor, longest: int, out: Tensor, sums: Tensor
) -> Tensor:
    result, gradient = torch.zeros_like(query_key_value), gradient.contiguous()
    for sequence in _samples(cumulative):
        output_gradient, output, output_sums = (x[sequence].transpose(0, 1)[None] for x in (gradient, out, sums))
        parts = flash_backward(
            output_gradient, *query_key_value[sequence].permute(HEADS_FIRST)[:, None].unbind(0), output, output_sums, 0.0,
            False)
        for place, part in enumerate(parts):
            result[sequence, place] = part[0].transpose(0, 1)
    return result


def _samples(cumulative: Tensor) -> list[slice]:
    starts = cumulative.numpy().tolist()
    return [slice(start, end) for start, end in zip(starts, starts[1:], strict=False)]


@_packed_attention_op.register_kernel("cuda")
def _forward_cuda(query_key_value: Tensor, cumulative: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    return xformers_attention.forward(query_key_value, cumulative, longest)


@_packed_attention_backward_op.register_kernel("cuda")
def _backward_cuda(
    gradient: Tensor, query_key_value: Tensor, cumulative: Tensor, longest: int, out: Tensor, sums: Tensor
) -> Tensor:
    return xformers_attention.backward(gradient, query_key_value, cumulative, longest, out, sums)


@_packed_attention_op.register_fake
def _forward_fake(query_key_value: Tensor, cumulative: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    rows, _, heads, size = query_key_value.shape
    out = query_key_value.new_empty(rows, heads, size)
    wide = torch.promote_types(out.dtype, torch.float32)
    if query_key_value.device.type == "cuda":
        return out, out.new_empty(xformers_attention.sums_shape(query_key_value, cumulative, longest), dtype=wide)
    return out, out.new_empty(rows, heads, dtype=wide)


@_packed_attention_backward_op.register_fake
def _backward_fake(
    gradient: Tensor, query_key_value: Tensor, cumulative: Tensor, longest: int, out: Tensor, sums: Tensor
) -> Tensor:
    return query_key_value.new_empty(query_key_value.shape)


def _save(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    query_key_value, cumulative, ctx.longest = inputs
    ctx.save_for_backward(query_key_value, cumulative, *output)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, gradient: Tensor | None, _: None) -> tuple[Tensor | None, None, None]:
    if gradient is None:
        return None, None, None
    query_key_value, cumulative, out, sums = ctx.saved_tensors
    return _packed_attention_backward_op(gradient, query_key_value, cumulative, ctx.longest, out, sums), None, None


_packed_attention_op.register_autograd(_backward, setup_context=_save)
