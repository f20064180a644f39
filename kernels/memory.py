"""How tensors lie in the memory that kernels load from.

Triton compiles a kernel anew for a pointer that is no multiple of 16 bytes, and then without its wide loads; a slice that
begins elsewhere would stop a run for seconds, wherever one comes up first. So it is copied.
"""

from torch import Tensor

WIDEST = 16  # bytes of a load


def loadable(x: Tensor) -> Tensor:
    """`x` without gaps, from a multiple of 16 bytes on; a copy where it does not lie so."""
    x = x.contiguous()
    return x if begins_wide(x) else x.clone()


def begins_wide(x: Tensor) -> bool:
    """Whether its first value stands at a multiple of 16 bytes."""
    return x.data_ptr() % WIDEST == 0
