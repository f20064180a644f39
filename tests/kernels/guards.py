"""Out-of-bounds checks of interpreted kernels: bounds, canary zones, poison; and triton-viz's sanitizer.

    with Guards() as guards:
        out = twin.op_triton(guards.place(x), guards.place(y))

Inside, an access outside the launch's tensors raises before it happens, every fresh tensor (`torch.empty` and its
kin) holds poison, and zones of poison lie round it and round what is placed, so that one buffer's overrun cannot
land in the next. At the end the zones must be whole. Poison is NaN, or an integer type's largest value.
"""

from contextlib import ExitStack
from types import TracebackType

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.kernels.accesses import Program, observed, span

ZONE = 4096  # bytes on each side


class Guards:
    """See the module."""

    def __init__(self) -> None:
        self._buffers: list[tuple[Tensor, Tensor]] = []  # all of a buffer; the tensor in its middle
        self._stack = ExitStack()
        self._spans: dict[str, tuple[int, int]] = {}
        self._kernel = ""

    def __enter__(self) -> "Guards":
        self._stack.enter_context(observed(self))
        self._stack.enter_context(_Allocations(self))
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()
        if error is None:
            self.check()

    def place(self, tensor: Tensor) -> Tensor:
        """A copy with zones round it, of the same strides; the gaps that strides leave hold poison too."""
        copy = self.allocate(tensor)
        # An expanded axis is written once.
        once = tuple(slice(0, 1) if stride == 0 else slice(None) for stride in tensor.stride())
        copy[once].copy_(tensor.detach()[once])
        return copy

    def allocate(self, like: Tensor) -> Tensor:
        """Poison of the shape, strides and dtype of `like`, with zones round it."""
        start, end = span(like)
        zone, count = ZONE // like.element_size(), (end - start) // like.element_size()
        buffer = torch.full((zone + count + zone,), _poison(like.dtype), dtype=like.dtype)
        middle = buffer.as_strided(like.shape, like.stride(), zone)
        self._buffers.append((buffer, middle))
        return middle

    def check(self) -> None:
        """Raise AssertionError where a zone was written to."""
        for buffer, middle in self._buffers:
            zone = ZONE // buffer.element_size()
            for side, part in (("before", buffer[:zone]), ("behind", buffer[len(buffer) - zone:])):
                whole = torch.full_like(part, _poison(part.dtype)).view(torch.uint8)
                if not torch.equal(part.view(torch.uint8), whole):
                    raise AssertionError(f"guards: written {side} {tuple(middle.shape)} {middle.dtype}")

    def launched(self, kernel: str, tensors: dict[str, Tensor]) -> None:
        self._kernel, self._spans = kernel, {name: span(tensor) for name, tensor in tensors.items()}

    def accessed(self, kind: str, program: Program, addresses: np.ndarray, size: int) -> None:
        outside = np.ones(len(addresses), dtype=bool)
        for start, end in self._spans.values():
            outside &= (addresses < start) | (addresses + np.uint64(size) > end)
        if outside.any():
            raise IndexError(self._describe(kind, program, int(addresses[outside][0])))

    def _describe(self, kind: str, program: Program, address: int) -> str:
        spans = self._spans
        name = min(spans, key=lambda name: min(abs(address - edge) for edge in spans[name]))
        return (
            f"guards: {self._kernel}, program {program}: {kind} {address - spans[name][0]} bytes from the start of"
            f" {name}, which has {spans[name][1] - spans[name][0]}"
        )


class _Allocations(TorchDispatchMode):
    """Gives every fresh CPU tensor zones and poison."""

    def __init__(self, guards: Guards) -> None:
        super().__init__()
        self.guards = guards

    def __torch_dispatch__(self, func: object, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket in _FRESH and result.numel() and result.device.type == "cpu":
            return self.guards.allocate(result)
        return result


_aten = torch.ops.aten
_FRESH = {_aten.empty, _aten.empty_like, _aten.empty_strided, _aten.new_empty, _aten.new_empty_strided}


def _poison(dtype: torch.dtype) -> float | int | bool:
    if dtype.is_floating_point:
        return float("nan")
    return True if dtype == torch.bool else torch.iinfo(dtype).max
