"""Arrays of a batch to the training device: in one piece, from page-locked memory, on a stream of their own.

The copy runs beside the steps that the device still has to do, and whoever uses the tensors waits for it there; the host
waits for nothing. On a CPU the tensors are views of the piece.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from kaleido_fast.devices import exact_device

ALIGNED = 16  # bytes at which every array begins, enough for any dtype


class Upload:
    """Copies to one device.

    Args:
        device: where the tensors are wanted.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = exact_device(device)
        self._cuda = device.type == "cuda"
        self._stream = torch.cuda.Stream(self.device) if self._cuda else None

    def empty(self, *shape: int) -> Tensor:
        """Host memory (uint8) that `send` takes without a copy in between."""
        return torch.empty(shape, dtype=torch.uint8, pin_memory=self._cuda)

    def send(self, values: Tensor) -> Tensor:
        """`values` of `empty` on the device."""
        if self._stream is None:
            return values
        with torch.cuda.stream(self._stream):
            on_device = values.to(self.device, non_blocking=True)
        user = torch.cuda.current_stream(self.device)
        user.wait_stream(self._stream)
        on_device.record_stream(user)  # its memory goes to another copy only when the user is done
        return on_device

    def __call__(self, arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
        """Tensors of the arrays' values, shapes and dtypes, all in one copy."""
        starts, size = {}, 0
        for name, values in arrays.items():
            starts[name], size = size, size + -(-values.nbytes // ALIGNED) * ALIGNED
        piece = self.empty(size)
        host = piece.numpy()
        for name, values in arrays.items():
            place = host[starts[name] : starts[name] + values.nbytes].view(values.dtype).reshape(values.shape)
            np.copyto(place, values)
        on_device = self.send(piece)
        return {name: _view(on_device, starts[name], values) for name, values in arrays.items()}


def _view(piece: Tensor, start: int, values: np.ndarray) -> Tensor:
    dtype = torch.from_numpy(np.empty(0, values.dtype)).dtype
    return piece[start : start + values.nbytes].view(dtype).view(values.shape)
