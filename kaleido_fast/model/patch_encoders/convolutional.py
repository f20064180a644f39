"""What the pre-trained convolutional encoders share: their own input scale, precision, pooling, weights from outside."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from kaleido_fast.model.patch_encoders.frozen_layers import draw_weights
from kaleido_fast.model.patch_encoders.interface import FrozenEncoder, affine_to

# Pixels encoded at once. On a core efficientnet_lite0 at 48 x 48 takes a fifth less time in such pieces than in whole
# batches, resnet50 the same; and at 224 x 224 activations stay in bounds (0.5 GiB the largest on CUDA).
PIECE, PIECE_CUDA = 1 << 18, 1 << 24
BACKEND = "inductor"  # of torch.compile
NOT_READ = ("num_batches_tracked",)  # counts of training; old files have none


class ConvolutionalEncoder(FrozenEncoder):
    """Frozen convolutions, then the mean over what is left of the patch; fp32 on CPU, bf16 and channels-last on CUDA.

    Patches come normalised by kaleido.mean and .std; an affine takes them to the network's own input before anything is
    padded, so that its zeros are the zeros it was trained with.
    """

    least_patch_size = 17  # below, the last of the five halvings has a single pixel to halve
    input_mean: ClassVar[tuple[float, float, float]]  # of x/255
    input_std: ClassVar[tuple[float, float, float]]
    classifier: ClassVar[str]  # what the names of the weights that are not used begin with

    def __init__(self, patch_size: int, mean: Sequence[float], std: Sequence[float]) -> None:
        """Raises ValueError where a patch has fewer than 17 pixels a side. The weights are not a number until given."""
        super().__init__(patch_size)
        scale, shift = affine_to(mean, std, self.input_mean, self.input_std)
        self.register_buffer("input_scale", scale, persistent=False)
        self.register_buffer("input_shift", shift, persistent=False)
        self._compiled: Callable[[Tensor], Tensor] | None = None

    def compile_network(self) -> None:
        """Run `feature_map` through torch.compile from now on, one graph for pieces of any number of rows."""
        self._compiled = torch.compile(self.feature_map, backend=BACKEND)

    def encode(self, patches: Tensor) -> Tensor:
        """(R, 3, P, P) -> (R, F) fp32, a piece of the rows at a time."""
        rows = max(1, (PIECE_CUDA if patches.is_cuda else PIECE) // patches.shape[-1] ** 2)
        dtype = torch.bfloat16 if patches.is_cuda else torch.float32
        pieces = [self._run(self.network_input(piece, dtype)) for piece in patches.split(rows)]
        return torch.cat([piece.mean((2, 3), dtype=torch.float32) for piece in pieces])

    def network_input(self, patches: Tensor, dtype: torch.dtype) -> Tensor:
        """(R, 3, P, P) of `dtype`, channels-last, in the scale the network was trained with."""
        own = torch.addcmul(self.input_shift, patches.float(), self.input_scale)
        return own.to(dtype=dtype, memory_format=torch.channels_last)

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

    @torch.no_grad()
    def take(self, weights: Mapping[str, Tensor], origin: str) -> None:
        """Copy a state dict; the classifier's weights are left.

        Raises:
            ValueError: tensors are missing, unknown or of another shape; the message begins with `origin`.
        """
        own = self.state_dict()
        given = {name: value for name, value in weights.items()
                 if not name.startswith(self.classifier) and not name.endswith(NOT_READ)}
        shapes = [f"{name} {tuple(given[name].shape)} instead of {tuple(own[name].shape)}"
                  for name in own if name in given and given[name].shape != own[name].shape]
        problems = [
            f"{len(names)} tensors {what}: {', '.join(names[:3])}{', …' if len(names) > 3 else ''}"
            for what, names in (
                ("missing", [name for name in own if name not in given]),
                ("unknown", [name for name in given if name not in own]),
                ("of another shape", shapes),
            ) if names
        ]
        if problems:
            raise ValueError(f"{origin}: not the weights of {self.name}: {'; '.join(problems)}")
        for name, value in own.items():
            value.copy_(given[name])
