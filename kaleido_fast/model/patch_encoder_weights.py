"""Weights of a pre-trained patch encoder: from a file, from an installed package, or drawn."""

import pickle
from pathlib import Path

import torch
from torch import Tensor

from kaleido_fast.model.patch_encoders.interface import PatchEncoder
from kaleido_fast.model.patch_encoders.pretrained import PretrainedEncoder
from kaleido_fast.model.settings import RANDOM


def give_weights(encoder: PatchEncoder, given: str) -> None:
    """Give a pre-trained encoder the weights that `given`, model.patch_encoder_weights, says; the others need none.

    Raises:
        ValueError: the file or package is not there, cannot be read, or holds other tensors.
    """
    if not isinstance(encoder, PretrainedEncoder):
        return
    if given == RANDOM:
        encoder.draw()
        return
    path = Path(given) if given else encoder.packaged_weights()
    encoder.take(read_tensors(path), f"model.patch_encoder_weights={path}")


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
