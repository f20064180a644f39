"""Attention under the prefix mask (SPEC 11): patches see patches; word i sees all patches and the words up to i.

As two block diagonals: patch queries over their patches; word queries over keys in the order patches, then words, causal at the
lower right. Rows lie apart: the patches of all samples, then the words of all samples. "sdpa" is two padded calls for all
samples: words that pad stand behind a sample's own, where the causal mask hides them.

Shapes: B samples, K patches of each, L words of the longest, W words of all, N = B K + W rows, A heads, D width of a head.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from kaleido_fast.model.attention import xformers_attention
from kaleido_fast.model.attention.packed import packed_attention

CAUSAL = (-1, 0)  # of varlen's window: all keys to the left of the lower right diagonal


@dataclass(frozen=True, slots=True)
class PrefixRows:
    """Which rows are whose, on the tensors' device."""

    num_patches: int  # K
    lengths: tuple[int, ...]  # words of each sample, on the host
    from_packed: Tensor  # (N,) int64 row of the packed sequence (words, then patches of each sample) of each row
    keys: Tensor  # (N,) int64 rows in the order of keys: each sample's patches, then its words
    patches_cumulative: Tensor  # (B + 1,) int32
    words_cumulative: Tensor  # (B + 1,) int32
    keys_cumulative: Tensor  # (B + 1,) int32
    padded: Tensor  # (B, L) int64 word of all words; any where a sample has fewer
    places: Tensor  # (W,) int64 place of each word among the B * L

    @property
    def num_rows(self) -> int:
        """Of all patches, B * K, behind which the words begin."""
        return len(self.lengths) * self.num_patches


def prefix_rows(lengths: Sequence[int], num_patches: int, device: torch.device) -> PrefixRows:
    """The rows of samples with `lengths` words and `num_patches` patches each.

    Raises:
        ValueError: a sample without words or patches.
    """
    if min(lengths, default=0) < 1 or num_patches < 1:
        raise ValueError(f"prefix mask: samples need a word and a patch each, found {min(lengths, default=0)} words and "
                         f"{num_patches} patches")
    words = torch.tensor(lengths)
    count, longest = len(lengths), int(words.max())
    starts = torch.cat([words.new_zeros(1), words.cumsum(0)])
    first = starts[:-1, None]
    each = torch.arange(num_patches)
    inside = torch.arange(longest) < words[:, None]
    samples = torch.arange(count)[:, None]
    word_rows = [torch.arange(int(a), int(b)) for a, b in zip(starts, starts[1:], strict=False)]
    packed_patches = first + words[:, None] + samples * num_patches + each
    packed_words = (first + samples * num_patches + torch.arange(longest))[inside]
    keys = torch.cat([part for sample, rows in enumerate(word_rows)
                      for part in (sample * num_patches + each, count * num_patches + rows)])
    on_device = [part.to(device) for part in (
        torch.cat([packed_patches.flatten(), packed_words]), keys,
        (torch.arange(count + 1) * num_patches).int(), starts.int(), (starts + torch.arange(count + 1) * num_patches).int(),
        (first + torch.arange(longest)).clamp(max=int(starts[-1]) - 1),
        inside.flatten().nonzero().squeeze(1))]
    return PrefixRows(num_patches, tuple(int(length) for length in lengths), *on_device)


def prefix_attention(query_key_value: Tensor, rows: PrefixRows, *, implementation: str, dropout: float = 0.0) -> Tensor:
    """(N, A, D) of (N, 3, A, D): all samples' patches, then all samples' words.

    Args:
        implementation: as of `packed_attention`.
        dropout: rate on the attention probabilities; 0 outside training.
    Raises:
        ValueError: an implementation that is unknown or cannot do what is asked.
    """
    count, width, longest = len(rows.lengths), rows.num_patches, max(rows.lengths)
    if implementation != "sdpa":  # refuses what it cannot do
        patches = packed_attention(query_key_value[: rows.num_rows], rows.patches_cumulative, width, [width] * count,
                                   implementation=implementation, dropout=dropout)
        query = query_key_value[rows.num_rows:, 0]
        keys = query_key_value[:, 1:].index_select(0, rows.keys)
        return torch.cat([patches, _words_by(implementation, query, keys, rows, longest, dropout)])
    parts = query_key_value[: rows.num_rows].unflatten(0, (count, width))
    query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)  # (B, A, K, D)
    patches = scaled_dot_product_attention(query, key, value, dropout_p=dropout)
    words = query_key_value[rows.num_rows:].index_select(0, rows.padded.flatten()).unflatten(0, (count, longest))
    word_query, word_key, word_value = words.permute(2, 0, 3, 1, 4).unbind(0)  # (B, A, L, D)
    causal = torch.ones(longest, width + longest, dtype=torch.bool, device=words.device).tril(width)
    attended = scaled_dot_product_attention(
        word_query, torch.cat([key, word_key], dim=2), torch.cat([value, word_value], dim=2), attn_mask=causal,
        dropout_p=dropout)
    flat = attended.transpose(1, 2).flatten(0, 1).index_select(0, rows.places)
    return torch.cat([patches.transpose(1, 2).flatten(0, 1), flat])


def _words_by(
    implementation: str, query: Tensor, keys: Tensor, rows: PrefixRows, longest: int, dropout: float
) -> Tensor:
    """(W, A, D) of word queries over `keys` (N, 2, A, D), in their order, in one call on CUDA."""
    if implementation == "xformers":
        totals = [length + rows.num_patches for length in rows.lengths]
        return xformers_attention.causal_lower_right(query, keys, rows.lengths, totals, dropout)
    from torch.nn.attention.varlen import varlen_attn

    key, value = keys.unbind(1)
    out = varlen_attn(query.contiguous(), key.contiguous(), value.contiguous(), rows.words_cumulative, rows.keys_cumulative,
                      longest, longest + rows.num_patches, window_size=CAUSAL)
    assert isinstance(out, Tensor)  # the log sums are not asked for
    return out
