"""What interpreted kernels ask of memory: every launch, and every load and store with its addresses."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Protocol

import numpy as np
from torch import Tensor
from triton.runtime import interpreter

from tests.kernels.interpreter import swapped

READ, WRITE, ATOMIC = "read", "write", "atomic"
Program = tuple[int, int, int]


class Observer(Protocol):
    """Is told of memory traffic while `observed` lasts."""

    def launched(self, kernel: str, tensors: dict[str, Tensor]) -> None:
        """A kernel starts on these tensors, by parameter name."""

    def accessed(self, kind: str, program: Program, addresses: np.ndarray, size: int) -> None:
        """A program is about to touch `size` bytes at each of (n,) uint64 addresses, masked ones left out."""


@contextmanager
def observed(observer: Observer) -> Iterator[None]:
    """Report to `observer` what every interpreted kernel does inside; an exception it raises stops the kernel."""
    builder = interpreter.interpreter_builder

    def report(kind: str, pointer: interpreter.TensorHandle, mask: interpreter.TensorHandle | None) -> None:
        addresses = pointer.data.reshape(-1)
        if mask is not None:
            addresses = addresses[np.broadcast_to(mask.data.astype(bool), pointer.data.shape).reshape(-1)]  # ints, from scalars
        size = max(1, pointer.get_element_ty().primitive_bitwidth // 8)
        observer.accessed(kind, builder.grid_idx, addresses, size)

    with ExitStack() as stack:
        for name, kind, pointer, mask in _MEMORY_OPERATIONS:
            wrapped = _reporting(getattr(builder, name), report, kind, pointer, mask)
            stack.enter_context(swapped(builder, name, wrapped))
        run = _announcing(interpreter.InterpretedFunction.run, observer)
        stack.enter_context(swapped(interpreter.InterpretedFunction, "run", run))
        yield


def span(tensor: Tensor) -> tuple[int, int]:
    """First address of a tensor and the address behind its last element."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    length = (last + 1) * tensor.element_size() if tensor.numel() else 0
    return tensor.data_ptr(), tensor.data_ptr() + length


# Method of the builder, what it does, the arguments that are its pointer and mask. Plain loads and stores call the
# masked ones.
_MEMORY_OPERATIONS = (
    ("create_masked_load", READ, 0, 1),
    ("create_masked_store", WRITE, 0, 2),
    ("create_atomic_rmw", ATOMIC, 1, 3),
    ("create_atomic_cas", ATOMIC, 0, None),
)


def _reporting(method: object, report: object, kind: str, pointer: int, mask: int | None) -> object:
    def wrapped(*args: object, **kwargs: object) -> object:
        report(kind, args[pointer], args[mask] if mask is not None else None)
        return method(*args, **kwargs)

    return wrapped


def _announcing(run: object, observer: Observer) -> object:
    def wrapped(kernel: interpreter.InterpretedFunction, *args: object, **kwargs: object) -> None:
        arguments = dict(zip(kernel.arg_names, args, strict=False)) | kwargs
        observer.launched(kernel.__name__, {k: v for k, v in arguments.items() if isinstance(v, Tensor)})
        run(kernel, *args, **kwargs)

    return wrapped
