"""embed: text tokens and kaleido patches into one packed sequence (SPEC 7).

    token t:  LN_text(word[id] + position[t] + segment)
    patch p:  LN_level(rows[source[b, p]] + constant[p]),  a row of -1 counts as zero

Sample b holds lengths[b] tokens, then its K patches; samples lie end to end, rows past the last are zero. LayerNorm over
H, biased variance, eps 1e-12. Dropout after it: Philox with key = seed and counter = (e >> 2 low, e >> 34, step, stream),
e = packed row * H + column, word e & 3; dropped below round(rate * 2^32), the rest over 1 - rate. Statistics in fp32,
float64 for float64.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from kaleido_fast.kernels.geometry import num_positions, position_levels
from kaleido_fast.kernels.philox import philox

EPS = 1e-12
MASK32 = 0xFFFFFFFF


def packed_index(lengths: Tensor, num_patches: int, num_packed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Where each packed row comes from, without a wait for the device.

    Returns:
        sample (N,) int64, B past the end; place (N,) int64 in its sample; cumulative (B+1,) int32 lengths.
    """
    totals = lengths.long() + num_patches
    cumulative = torch.nn.functional.pad(totals.cumsum(0), (1, 0))
    row = torch.arange(num_packed, device=lengths.device)
    sample = torch.searchsorted(cumulative[1:], row, right=True)
    return sample, row - cumulative[sample], cumulative.int()


def embed_reference(
    tokens: Tensor, lengths: Tensor, num_packed: int, rows: Tensor, source: Tensor, constant: Tensor,
    word: Tensor, position: Tensor, segment: Tensor, norm_weight: Tensor, norm_bias: Tensor,
    grids: Sequence[int], dropout: float, dropout_key: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Plain version: packed (N, H), cumulative lengths, and what the backward reads: normalised rows and 1 / deviation."""
    work = torch.float64 if word.dtype == torch.float64 else torch.float32
    where = _Places(tokens, lengths, num_packed, source, grids)
    summed = torch.zeros(num_packed, word.shape[1], dtype=work)
    text = word[where.ids].to(work) + position[where.text_place] + segment
    summed[where.text_row] = text
    shown = torch.cat([rows.to(work), rows.new_zeros(1, rows.shape[1], dtype=work)])[where.patch_source]
    summed[where.patch_row] = shown + where.of_patches(constant.to(work))
    centred = summed - summed.mean(-1, keepdim=True)
    inverse = (centred.square().mean(-1, keepdim=True) + EPS).rsqrt()
    normalised = centred * inverse
    packed = normalised * norm_weight.to(work)[where.norm] + norm_bias.to(work)[where.norm]
    packed[where.end :] = 0
    if dropout:
        packed *= dropout_scale(num_packed, word.shape[1], dropout, dropout_key).to(work)
    return packed.to(rows.dtype), where.cumulative, normalised, inverse


def embed_backward_reference(
    dpacked: Tensor, normalised: Tensor, inverse: Tensor,
    tokens: Tensor, lengths: Tensor, source: Tensor, norm_weight: Tensor,
    grids: Sequence[int], dropout: float, dropout_key: Tensor,
    num_rows: int, num_words: int, num_token_places: int, constant_shape: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of rows, constant, word, position, segment, norm_weight and norm_bias, in that order."""
    num_packed, hidden = dpacked.shape
    work = normalised.dtype
    where = _Places(tokens, lengths, num_packed, source, grids)
    dy = dpacked.to(work)
    if dropout:
        dy = dy * dropout_scale(num_packed, hidden, dropout, dropout_key).to(work)
    dy, xhat, norm = dy[: where.end], normalised[: where.end], where.norm[: where.end]
    dnorm_bias = torch.zeros_like(norm_weight, dtype=work).index_add_(0, norm, dy)
    dnorm_weight = torch.zeros_like(norm_weight, dtype=work).index_add_(0, norm, dy * xhat)
    dxhat = dy * norm_weight.to(work)[norm]
    dx = inverse[: where.end] * (
        dxhat - dxhat.mean(-1, keepdim=True) - xhat * (dxhat * xhat).mean(-1, keepdim=True)
    )
    dtext, dpatch = dx[where.text_row], dx[where.patch_row]
    shown = where.patch_source.where(where.patch_source >= 0, num_rows)
    drows = dx.new_zeros(num_rows + 1, hidden).index_add_(0, shown, dpatch)[:-1]
    dword = dx.new_zeros(num_words, hidden).index_add_(0, where.ids, dtext)
    dposition = dx.new_zeros(num_token_places, hidden).index_add_(0, where.text_place, dtext)
    by_sample = dpatch.view(len(lengths), source.shape[1], hidden)
    dconstant = by_sample.sum(0) if len(constant_shape) == 2 else by_sample.clone()
    return drows, dconstant, dword, dposition, dtext.sum(0), dnorm_weight, dnorm_bias


def dropout_scale(num_packed: int, hidden: int, rate: float, key: Tensor) -> Tensor:
    """(N, H) fp32: 0 where dropped, 1 / (1 - rate) elsewhere."""
    seed, step, stream = key.tolist()
    quads = torch.arange((num_packed * hidden + 3) // 4)
    words = philox(seed & MASK32, (seed >> 32) & MASK32, quads & MASK32, quads >> 32, step & MASK32, stream & MASK32)
    kept = torch.stack(words, dim=1).flatten()[: num_packed * hidden] >= round(rate * 2**32)
    return (kept / (1 - rate)).view(num_packed, hidden).float()


class _Places:
    """Index arithmetic shared by forward and backward: which packed row holds what."""

    def __init__(self, tokens: Tensor, lengths: Tensor, num_packed: int, source: Tensor, grids: Sequence[int]) -> None:
        num_patches = source.shape[1]
        sample, place, self.cumulative = packed_index(lengths, num_patches, num_packed)
        self.end = int(self.cumulative[-1])
        sample, place = sample[: self.end], place[: self.end]
        is_text = place < lengths.long()[sample]
        self.text_row, self.patch_row = is_text.nonzero()[:, 0], (~is_text).nonzero()[:, 0]
        self.text_place = place[self.text_row]
        self.ids = tokens[sample[self.text_row], self.text_place].long()
        self.patch_source = source.flatten().long()  # -1 reads the zero row at the end
        self._samples = len(lengths)
        self.norm = torch.zeros(num_packed, dtype=torch.int64)
        self.norm[self.patch_row] = (position_levels(grids) + 1).repeat(self._samples)

    def of_patches(self, constant: Tensor) -> Tensor:
        """(B*K, H): the constant of each patch row."""
        return constant.repeat(self._samples, 1) if constant.dim() == 2 else constant.flatten(0, 1)


@torch.library.custom_op("kaleido_fast::embed", mutates_args=(), device_types="cpu")
def _embed(
    tokens: Tensor, lengths: Tensor, num_packed: int, rows: Tensor, source: Tensor, constant: Tensor,
    word: Tensor, position: Tensor, segment: Tensor, norm_weight: Tensor, norm_bias: Tensor,
    grids: Sequence[int], dropout: float, dropout_key: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return embed_reference(tokens, lengths, num_packed, rows, source, constant, word, position, segment,
                           norm_weight, norm_bias, grids, dropout, dropout_key)


@_embed.register_fake
def _(tokens, lengths, num_packed, rows, source, constant, word, position, segment, norm_weight, norm_bias,  # noqa: ANN001, ANN202
      grids, dropout, dropout_key):
    work = torch.float64 if word.dtype == torch.float64 else torch.float32
    packed = rows.new_empty(num_packed, word.shape[1])
    return (packed, lengths.new_empty(lengths.shape[0] + 1, dtype=torch.int32),
            packed.new_empty(packed.shape, dtype=work), packed.new_empty(num_packed, 1, dtype=work))


@torch.library.custom_op("kaleido_fast::embed_backward", mutates_args=(), device_types="cpu")
def _embed_backward(
    dpacked: Tensor, normalised: Tensor, inverse: Tensor,
    tokens: Tensor, lengths: Tensor, source: Tensor, norm_weight: Tensor,
    grids: Sequence[int], dropout: float, dropout_key: Tensor,
    num_rows: int, num_words: int, num_token_places: int, constant_shape: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    return embed_backward_reference(dpacked, normalised, inverse, tokens, lengths, source, norm_weight, grids, dropout,
                                    dropout_key, num_rows, num_words, num_token_places, constant_shape)


@_embed_backward.register_fake
def _(dpacked, normalised, inverse, tokens, lengths, source, norm_weight, grids, dropout, dropout_key,  # noqa: ANN001, ANN202
      num_rows, num_words, num_token_places, constant_shape):
    hidden = normalised.shape[1]
    new = normalised.new_empty
    return (new(num_rows, hidden), new(constant_shape), new(num_words, hidden), new(num_token_places, hidden),
            new(hidden), new(norm_weight.shape), new(norm_weight.shape))


def _setup(ctx, inputs, output) -> None:  # noqa: ANN001
    tokens, lengths, _, rows, source, constant, word, position, _, norm_weight, _, grids, dropout, key = inputs
    _, _, normalised, inverse = output
    ctx.save_for_backward(normalised, inverse, tokens, lengths, source, norm_weight, key)
    ctx.mark_non_differentiable(output[1], normalised, inverse)
    ctx.options = (grids, dropout, rows.shape[0], word.shape[0], position.shape[0], list(constant.shape))
    ctx.dtypes = [tensor.dtype for tensor in inputs if isinstance(tensor, Tensor)]


def _backward(ctx, dpacked: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN001
    normalised, inverse, tokens, lengths, source, norm_weight, key = ctx.saved_tensors
    grids, dropout, *sizes = ctx.options
    drows, dconstant, dword, dposition, dsegment, dweight, dbias = _embed_backward(
        dpacked.contiguous(), normalised, inverse, tokens, lengths, source, norm_weight, grids, dropout, key, *sizes)
    drows_dtype, dconstant_dtype, table_dtype = ctx.dtypes[2], ctx.dtypes[4], ctx.dtypes[5]
    tables = [table.to(table_dtype) for table in (dword, dposition, dsegment, dweight, dbias)]
    return (None, None, None, drows.to(drows_dtype), None, dconstant.to(dconstant_dtype), *tables, None, None, None)


_embed.register_autograd(_backward, setup_context=_setup)


def embed(
    tokens: Tensor, lengths: Tensor, num_packed: int, rows: Tensor, source: Tensor, constant: Tensor,
    word: Tensor, position: Tensor, segment: Tensor, norm_weight: Tensor, norm_bias: Tensor,
    *, grids: Sequence[int], dropout: float = 0.0, dropout_key: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Packed embeddings of a batch.

    Args:
        tokens: (B, T) int32 ids; lengths: (B,) int32, text tokens of each sample.
        num_packed: N, at least the sum of lengths + B * K.
        rows: (R, H) projected patch rows; source: (B, K) int32 row of each position, -1 for none; K = 0: text alone.
        constant: (K, H), or (B, K, H) where locations are the sample's own.
        word: (V, H); position: (at least T, H); segment: (H,).
        norm_weight, norm_bias: (1 + L, H): row 0 the text's, row n the n-th level's.
        grids: the levels of the K positions, () for text alone.
        dropout: rate; dropout_key: (3,) int64 seed, step, stream.
    Returns:
        (N, H) in the dtype of `rows`; (B + 1,) int32 cumulative lengths.
    Raises:
        ValueError: the shapes do not fit each other, or dropout has no key.
    """
    batch, hidden = tokens.shape[0], word.shape[1]
    num_patches = num_positions(grids)
    if source.shape != (batch, num_patches):
        raise ValueError(f"embed: source must be (B, K) = ({batch}, {num_patches}) for grids {list(grids)}, "
                         f"found {tuple(source.shape)}")
    if tuple(constant.shape) not in ((num_patches, hidden), (batch, num_patches, hidden)):
        raise ValueError(f"embed: constant must be (K, H) or (B, K, H) with K={num_patches}, H={hidden}, "
                         f"found {tuple(constant.shape)}")
    if norm_weight.shape != (1 + len(grids), hidden) or norm_bias.shape != norm_weight.shape:
        raise ValueError(f"embed: norms must be (1 + L, H) = ({1 + len(grids)}, {hidden}), found "
                         f"{tuple(norm_weight.shape)} and {tuple(norm_bias.shape)}")
    if tokens.shape[1] > position.shape[0]:
        raise ValueError(f"embed: {tokens.shape[1]} tokens but only {position.shape[0]} rows in the position table")
    if dropout and dropout_key is None:
        raise ValueError(f"embed: dropout={dropout} needs dropout_key (seed, step, stream)")
    if dropout_key is None:
        dropout_key = lengths.new_zeros(3, dtype=torch.int64)
    packed, cumulative, _, _ = _embed(tokens, lengths, num_packed, rows, source, constant, word, position, segment,
                                      norm_weight, norm_bias, list(grids), float(dropout), dropout_key)
    return packed, cumulative
