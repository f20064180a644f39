"""xformers' way of attention on tensors without memory that say they lie on an H100: what is picked, what shapes come out.

For a process of its own: torch is told of a GPU that is not there. Prints one JSON object.
"""

import json

import torch

torch.version.cuda = "12.8"
torch.backends.cuda.is_flash_attention_available = lambda: True
torch.cuda.get_device_capability = lambda device=None: (9, 0)
by_index = torch.Tensor.__getitem__  # which asks the device that is not there
torch.Tensor.__getitem__ = lambda self, i: self.select(0, i) if isinstance(i, int) else by_index(self, i)

from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from xformers.ops.fmha import common

from kaleido_fast.model.attention import packed, xformers_attention

common._built_with_cuda = True
DEVICE, A, D = torch.device("cuda", 0), 4, 64


class Copies(TorchDispatchMode):
    """What is copied together."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in (torch.ops.aten.stack, torch.ops.aten.cat, torch.ops.aten.copy_):
            self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


def shapes(dtype: torch.dtype, *, backward: bool) -> dict:
    """24 rows of 4 samples, the longest of 12."""
    given = torch.empty(24, 3, A, D, device=DEVICE, dtype=dtype)
    cumulative = torch.empty(5, device=DEVICE, dtype=torch.int32)
    out, sums = xformers_attention.forward(given, cumulative, 12)
    found = {"kernels": packed.attention_kernels("xformers", DEVICE, dtype, A, D, 0.0), "out": list(out.shape),
             "strides": list(out.stride()), "sums": list(sums.shape),
             "expected sums": list(xformers_attention.sums_shape(given, cumulative, 12)),
             "operator": list(packed.packed_attention(given, cumulative, 12, (), implementation="xformers").shape)}
    if backward:  # of cutlass: its random state lies on the CPU, which fake tensors refuse
        gradient = torch.empty_like(out)
        with Copies() as copies:
            found["gradient"] = list(xformers_attention.backward(gradient, given, cumulative, 12, out, sums).shape)
        found["copies"] = copies.seen
        dropped = packed.packed_attention(given, cumulative, 12, (), implementation="xformers", dropout=0.1)
        found["dropped"] = list(dropped.shape)
    return found


def refusal(dtype: torch.dtype, size: int) -> str:
    try:
        return str(xformers_attention.kernels(DEVICE, dtype, A, size))
    except ValueError as error:
        return str(error)


with FakeTensorMode():
    print(json.dumps({
        "bf16": shapes(torch.bfloat16, backward=True), "fp32": shapes(torch.float32, backward=False),
        "fp64": refusal(torch.float64, D), "odd": refusal(torch.bfloat16, 30)}))
