"""xformers' block-diagonal memory-efficient attention on CUDA. The one door to xformers (optional extra `gpu`).

It opens on CUDA, when model.attention=xformers asks for it or auto looks whether it is there. Of the kernels that xformers has
for a GPU, dtype and width of a head the first that fits is picked, once; its name is logged and stored with the run.

Shapes as in packed.py.
"""

import ctypes
import functools
import importlib.util
import logging
import types
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

ROWS = 32  # xformers' cutlass kernel pads the rows of its sums to a multiple of it
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
INSTEAD = "or set model.attention=auto"


class Kernels(NamedTuple):
    """xformers' operators for one kind of input."""

    forward: Any
    backward: Any


def require_xformers() -> None:
    """Refuse model.attention=xformers without the package (ValueError says how to install it)."""
    if importlib.util.find_spec("xformers") is None:
        raise ValueError("model.attention=xformers needs the package xformers, which is not installed; "
                         f"`pip install -c constraints-gpu.txt -e '.[gpu]'`, {INSTEAD}")


@functools.cache
def kernels(device: torch.device, dtype: torch.dtype, heads: int, size: int, dropout: float = 0.0) -> Kernels:
    """What xformers picks.

    Raises:
        ValueError: it is not installed or has nothing for this; its own reasons are in the message.
    """
    fmha = _fmha()
    if dtype not in DTYPES:
        raise ValueError(f"attention=xformers has no {dtype}; set model.attention=auto")
    from xformers.ops.fmha.dispatch import _dispatch_bw, _dispatch_fw

    sample = torch.zeros(1, 4, heads, size, device=device, dtype=dtype)
    mask = _mask(torch.tensor([0, 2, 4], device=device, dtype=torch.int32), 2)
    inputs = fmha.Inputs(sample, sample, sample, attn_bias=mask, p=dropout)
    try:
        forward = _dispatch_fw(inputs, True)
        return Kernels(forward, _dispatch_bw(inputs, varlen_lse_packed=forward.VARLEN_LSE_PACKED))
    except NotImplementedError as error:
        reasons = "; ".join(dict.fromkeys(line.strip() for line in str(error).splitlines()[6:]))
        raise ValueError(f"attention=xformers has no kernel for {dtype} and heads of {size} on {device}: {reasons}; see "
                         f"`python -m xformers.info`, {INSTEAD}") from None


def lacking(device: torch.device, dtype: torch.dtype, heads: int, size: int, dropout: float) -> str:
    """Why xformers cannot run; empty where it can."""
    if importlib.util.find_spec("xformers") is None:
        return "xformers is not installed"
    try:
        kernels(device, dtype, heads, size, dropout)
    except ValueError as error:
        return str(error).removesuffix(f", {INSTEAD}")
    except (ImportError, OSError) as error:  # built for another torch, or a library that it needs is not there
        return f"xformers is installed and does not load: {str(error).splitlines()[0]}"
    return ""


def forward(query_key_value: Tensor, cumulative: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """(N, A, D) outputs, and the sums of `sums_shape`."""
    out, sums = _fmha().memory_efficient_attention_forward_requires_grad(
        *_parts(query_key_value), attn_bias=_mask(cumulative, longest), op=_kernels_of(query_key_value).forward)
    return out.squeeze(0), sums


def backward(
    gradient: Tensor, query_key_value: Tensor, cumulative: Tensor, longest: int, out: Tensor, sums: Tensor
) -> Tensor:
    """(N, 3, A, D).

    Its public function does not say that q, k and v are slices of one tensor; the private one does, and flash-attention's own
    kernels then write the three gradients as slices of one. torch's kernels (names that end in -pt) allocate three, which no
    argument changes, and they are copied: three products on the parts, summed, would move as many bytes as the copy.
    """
    fmha = _fmha()
    gradients = fmha._memory_efficient_attention_backward(
        fmha.Context(lse=sums, out=out.unsqueeze(0), qkv_share_storage=True),
        fmha.Inputs(*_parts(query_key_value), attn_bias=_mask(cumulative, longest)), gradient.unsqueeze(0),
        op=_kernels_of(query_key_value).backward)
    return joined([part.squeeze(0) for part in (gradients.dq, gradients.dk, gradients.dv)])


def joined(parts: Sequence[Tensor]) -> Tensor:
    """(N, 3, A, D) of three (N, A, D): the tensor whose slices they are, or else a copy."""
    first = parts[0]
    rows, heads, size = first.shape
    places = [(part.untyped_storage()._cdata, part.storage_offset(), part.stride()) for part in parts]
    storage, offset, _ = places[0]
    strides = (3 * heads * size, size, 1)
    if places == [(storage, offset + place * heads * size, strides) for place in range(3)]:
        return first.as_strided((rows, 3, heads, size), (strides[0], heads * size, *strides[1:]))
    return torch.stack(list(parts), dim=1)


def with_dropout(query_key_value: Tensor, cumulative: Tensor, longest: int, dropout: float) -> Tensor:
    """(N, A, D) by xformers' own autograd function, which keeps the state of the dropout."""
    picked = _kernels_of(query_key_value, dropout)
    return _fmha().memory_efficient_attention(
        *_parts(query_key_value), attn_bias=_mask(cumulative, longest), p=dropout, op=tuple(picked)).squeeze(0)


def causal_lower_right(
    query: Tensor, keys: Tensor, lengths: Sequence[int], totals: Sequence[int], dropout: float
) -> Tensor:
    """(W, A, D) of queries (W, A, D) over keys and values (N, 2, A, D): in each sample the last query sees all of its keys,
    the one before it all but the last (prefix.py).

    Args:
        lengths: queries of each sample; totals: keys of each, as many or more.
    """
    fmha = _fmha()
    mask = fmha.attn_bias.BlockDiagonalCausalFromBottomRightMask.from_seqlens(
        list(lengths), list(totals), device=query.device)
    key, value = keys.unbind(1)
    return fmha.memory_efficient_attention(query[None], key[None], value[None], attn_bias=mask, p=dropout).squeeze(0)


def sums_shape(query_key_value: Tensor, cumulative: Tensor, longest: int) -> tuple[Any, ...]:
    """Of what the forward keeps of the softmax: (1, A, N), or (B, A, longest in whole 32) by the cutlass kernel."""
    rows, _, heads, _ = query_key_value.shape
    if _kernels_of(query_key_value).forward.VARLEN_LSE_PACKED:
        return 1, heads, rows
    return len(cumulative) - 1, heads, (longest + ROWS - 1) // ROWS * ROWS


def _kernels_of(query_key_value: Tensor, dropout: float = 0.0) -> Kernels:
    return kernels(query_key_value.device, query_key_value.dtype, *(int(n) for n in query_key_value.shape[2:]), dropout)


def _parts(query_key_value: Tensor) -> tuple[Tensor, ...]:
    return query_key_value.unsqueeze(0).unbind(2)


def _mask(cumulative: Tensor, longest: int) -> Any:
    """xformers' mask from what is on the device already: its own constructor would upload the lengths once more."""
    mask = _fmha().attn_bias.BlockDiagonalMask.from_seqlens([1], device=torch.device("cpu"))
    samples = replace(mask.q_seqinfo, seqstart=cumulative, max_seqlen=longest, min_seqlen=1)
    return replace(mask, q_seqinfo=samples, k_seqinfo=samples)


@functools.cache
def _fmha() -> types.ModuleType:
    require_xformers()
    _load_cuda_runtime()
    logging.getLogger("xformers").setLevel(logging.ERROR)  # lines on what is not for attention
    from xformers.ops import fmha

    return fmha


def _load_cuda_runtime() -> None:
    """xformers 0.0.35 is built for CUDA 12: beside a torch for CUDA 13 the runtime of version 12 is loaded first, from the
    package nvidia-cuda-runtime-cu12."""
    if (torch.version.cuda or "12").startswith("12"):
        return
    runtime = importlib.util.find_spec("nvidia.cuda_runtime") if importlib.util.find_spec("nvidia") else None
    for folder in runtime.submodule_search_locations or () if runtime else ():
        library = Path(folder) / "lib" / "libcudart.so.12"
        if library.is_file():
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
