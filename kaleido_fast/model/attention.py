"""Attention over a packed sequence, block-diagonal by sample (SPEC 7): one function, several ways.

softmax(q k^T / sqrt(D)) v inside each sample; no padding, no mask.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


def packed_attention(
    query: Tensor, key: Tensor, value: Tensor, cumulative: Tensor, lengths: Sequence[int],
    *, implementation: str, dropout: float = 0.0,
) -> Tensor:
    """Attention of each sample with itself.

    Args:
        query, key, value: (N, A, D), samples end to end; rows past the last sample's end are left alone.
        cumulative: (B + 1,) int32, where samples begin; on the tensors' device.
        lengths: the same lengths on the host.
        implementation: "sdpa", a call a sample (the fastest of the ways compared on a CPU), or "varlen", torch's
            variable-length flash attention (CUDA, 16 bit, no dropout).
        dropout: rate on the attention probabilities; 0 outside training.
    Returns:
        (N, A, D).
    Raises:
        ValueError: an implementation that is unknown or cannot do what is asked.
    """
    if implementation == "sdpa":
        return _sdpa(query, key, value, lengths, dropout)
    if implementation == "varlen":
        return _varlen(query, key, value, cumulative, max(lengths), dropout)
    raise ValueError(f"attention={implementation}: unknown; use sdpa or varlen")


def _sdpa(query: Tensor, key: Tensor, value: Tensor, lengths: Sequence[int], dropout: float) -> Tensor:
    rest = query.shape[0] - sum(lengths)
    sizes = [*lengths, rest] if rest else list(lengths)
    # split, not indexing: the backward of x[a:b] fills a tensor of the whole size for every sample
    parts = zip(query.split(sizes), key.split(sizes), value.split(sizes), strict=True)
    out = [
        scaled_dot_product_attention(
            q.transpose(0, 1)[None], k.transpose(0, 1)[None], v.transpose(0, 1)[None], dropout_p=dropout
        )[0].transpose(0, 1)
        for q, k, v in parts
    ]
    return torch.cat(out)


def _varlen(query: Tensor, key: Tensor, value: Tensor, cumulative: Tensor, longest: int, dropout: float) -> Tensor:
    if not query.is_cuda:
        raise ValueError(f"attention=varlen needs a CUDA device, found {query.device}; set model.attention=sdpa")
    if dropout:
        raise ValueError(f"attention=varlen has no dropout, found {dropout}; set model.attention_dropout=0")
    from torch.nn.attention.varlen import varlen_attn

    return varlen_attn(query, key, value, cumulative, cumulative, longest, longest)
