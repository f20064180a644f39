"""The machine and the software that a figure was measured on."""

import importlib.metadata
import os
import platform
from typing import Any

import torch

PACKAGES = ("torch", "triton", "numpy", "deepspeed", "xformers", "nvidia-dali-cuda120", "transformers")


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Names and versions, as plain values; packages that are not installed are None."""
    environment: dict[str, Any] = {
        "device": device.type, "python": platform.python_version(), "cpus": os.cpu_count(),
        "packages": {name: _version(name) for name in PACKAGES}, "cuda": torch.version.cuda,
    }
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        environment |= {"gpu": card.name, "gpu_memory_gib": round(card.total_memory / 2**30, 1),
                  "multiprocessors": card.multi_processor_count, "l2_mib": card.L2_cache_size / 2**20,
                  "capability": f"{card.major}.{card.minor}"}
    return environment


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
