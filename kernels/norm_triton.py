"""LayerNorm of a tile of whole rows: what embed's kernels share, in fp32.

Divisions are exact to the last bit: where all values of a row are equal, one ulp of the mean would come out
multiplied by 1 / sqrt(eps) = 1e6.
"""

import triton
import triton.language as tl

from kaleido_fast.kernels import embed_inputs

EPS = tl.constexpr(embed_inputs.EPS)


@triton.jit
def normed(
    x,  # (ROWS, BLOCK) fp32
    inside,  # (1, BLOCK): column < HIDDEN
    HIDDEN: tl.constexpr,
):
    """(x - mean) / sqrt(variance + eps), zero outside, and 1 / sqrt(variance + eps), (ROWS, 1)."""
    mean = tl.div_rn(tl.sum(tl.where(inside, x, 0.0), axis=1, keep_dims=True), float(HIDDEN))
    centred = tl.where(inside, x - mean, 0.0)
    variance = tl.div_rn(tl.sum(centred * centred, axis=1, keep_dims=True), float(HIDDEN))
    rstd = tl.rsqrt(variance + EPS)
    return centred * rstd, rstd


@triton.jit
def norm_gradient(
    dnormed,  # (ROWS, BLOCK) fp32, zero outside: gradient of `normed`'s first
    normed_x,  # (ROWS, BLOCK) fp32
    rstd,  # (ROWS, 1) fp32
    HIDDEN: tl.constexpr,
):
    """(ROWS, BLOCK): the gradient of x."""
    mean = tl.sum(dnormed, axis=1, keep_dims=True) * (1.0 / HIDDEN)
    slope = tl.sum(dnormed * normed_x, axis=1, keep_dims=True) * (1.0 / HIDDEN)
    return rstd * (dnormed - mean - normed_x * slope)
