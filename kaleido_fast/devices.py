"""Which card `cuda` alone means: the current one, where torch puts what is sent there; a worker makes its own card that."""

import torch


def exact_device(device: torch.device) -> torch.device:
    """The device with its index, where it is a GPU."""
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device
