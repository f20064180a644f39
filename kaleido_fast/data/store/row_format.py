"""How a row of F features lies in a feature store, and what rounding it costs.

    dtype   bytes a row   a value read back
    fp32    4 F           itself
    fp16    2 F           within |x| / 2048 + 2^-25
    uint8   8 + F         within 0.502 of a step; step = (most - least) / 255 of the row, both fp32 before the F bytes

A uint8 row is least + step * q, q in 0..255, so that rows of either sign fit; a row of one value alone is exact.
"""

from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

StoreDtype = Literal["fp32", "fp16", "uint8"]
STORE_DTYPES: tuple[str, ...] = get_args(StoreDtype)
SCALE_BYTES = 8  # least and step of a uint8 row
STEPS = 255
MOST_FP16 = 65504.0


def row_bytes(dtype: StoreDtype, num_features: int) -> int:
    """Bytes of a stored row of F features."""
    return {"fp32": 4 * num_features, "fp16": 2 * num_features, "uint8": SCALE_BYTES + num_features}[dtype]


def pack_rows(rows: np.ndarray, dtype: StoreDtype) -> np.ndarray:
    """(..., F) float32 -> (..., row_bytes) uint8, little-endian.

    Raises:
        ValueError: a feature is not finite, or too large for fp16.
    """
    rows = np.ascontiguousarray(rows, "<f4")
    if not np.isfinite(rows).all():
        raise ValueError("feature store: a feature is not finite; look at the patch encoder and its input")
    if dtype == "fp32":
        return rows.view(np.uint8)
    if dtype == "fp16":
        if np.abs(rows).max(initial=0) > MOST_FP16:
            raise ValueError(f"feature store: a feature of {np.abs(rows).max():g} does not fit fp16 (65,504 at most); store "
                             "fp32 or uint8")
        return rows.astype("<f2").view(np.uint8)
    least = rows.min(axis=-1, keepdims=True)
    step = (rows.max(axis=-1, keepdims=True).astype(np.float64) - least) / STEPS
    step = np.minimum(step, np.finfo(np.float32).max / STEPS).astype("<f4")
    quotient = np.divide(rows.astype(np.float64) - least, step, out=np.zeros(rows.shape), where=step > 0)
    scale = np.concatenate([least, step], axis=-1).view(np.uint8)
    return np.concatenate([scale, np.clip(np.rint(quotient), 0, STEPS).astype(np.uint8)], axis=-1)


def unpack_rows(packed: Tensor, dtype: StoreDtype) -> Tensor:
    """(..., row_bytes) uint8 -> (..., F) float32, on the tensor's device."""
    packed = packed.contiguous()
    if dtype == "fp32":
        return packed.view(torch.float32)
    if dtype == "fp16":
        return packed.view(torch.float16).float()
    scale = packed[..., :SCALE_BYTES].clone(memory_format=torch.contiguous_format).view(torch.float32)
    return torch.addcmul(scale[..., :1], scale[..., 1:], packed[..., SCALE_BYTES:].float())
