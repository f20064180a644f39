"""What the pre-trained convolutional encoders share: precision, pieces, pooling."""

from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kaleido_fast.model.patch_encoders.frozen_layers import draw_weights
from kaleido_fast.model.patch_encoders.pretrained import PretrainedEncoder

# Pixels encoded at once. On a core efficientnet_lite0 at 48 x 48 takes a fifth less time in such pieces than in whole
# batches, resnet50 the same; and at 224 x 224 activations stay in bounds (0.5 GiB the largest on CUDA).
PIECE, PIECE_CUDA = 1 << 18, 1 << 24
BACKEND = "inductor"  # of torch.compile


class ConvolutionalEncoder(PretrainedEncoder):
    """Frozen convolutions, then the mean over what is left of the patch; fp32 on CPU, bf16 and channels-last on CUDA."""

    least_patch_size = 17  # below, the last of the five halvings has a single pixel to halve

    def __init__(self, patch_size: int, mean: Sequence[float], std: Sequence[float]) -> None:
        """Raises ValueError where a patch has fewer than 17 pixels a side. The weights are not a number until given."""
        super().__init__(patch_size, mean, std)
        self._compiled: Callable[[Tensor], Tensor] | None = None

    def compile_network(self) -> None:
        """Run `feature_map` through torch.compile from now on, one graph for pieces of any number of rows."""
        self._compiled = torch.compile(self.feature_map, backend=BACKEND)

    def rounds_on(self, device: torch.device) -> bool:
        return device.type == "cuda"

    def encode(self, patches: Tensor) -> Tensor:
        """(R, 3, P, P) -> (R, F) fp32, a piece of the rows at a time."""
        dtype = self.network_dtype(patches.device)
        if torch.compiler.is_exporting():  # pieces of some number of rows would be written down for all numbers
            return self._run(self.network_input(patches, dtype)).mean((2, 3), dtype=torch.float32)
        rows = max(1, (PIECE_CUDA if patches.is_cuda else PIECE) // patches.shape[-1] ** 2)
        pieces = [self._run(self.network_input(piece, dtype)) for piece in patches.split(rows)]
        return torch.cat([piece.mean((2, 3), dtype=torch.float32) for piece in pieces])

    def _run(self, x: Tensor) -> Tensor:
        if self._compiled is None:
            return self.feature_map(x)
        torch._dynamo.maybe_mark_dynamic(x, 0)
        return self._compiled(x)

    @abstractmethod
    def feature_map(self, x: Tensor) -> Tensor:
        """(R, 3, P, P) network input -> (R, F, h, w)."""

    def draw(self) -> None:
        """Random weights, for benchmarks."""
        draw_weights(self)
