"""Weights that are not finite train nothing and rank nothing: whoever reads weights refuses them."""

from collections.abc import Mapping

import torch
from torch import Tensor

from kaleido_fast.options import Option, OptionError


def require_finite(tensors: Mapping[str, Tensor], where: str, *advice: str | Option) -> None:
    """Refuse (ValueError, naming the first) tensors that hold NaN or infinity.

    Args:
        where: file or folder they come from; begins the error.
        advice: what to do; ends the error.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            count = int((~torch.isfinite(tensor)).sum())
            raise OptionError(f"{where}: '{name}' holds {count:,} of {tensor.numel():,} values that are not finite; ", *advice)
