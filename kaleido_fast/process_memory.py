"""Memory of this process, as Linux counts it, and the most that a call takes."""

from collections.abc import Callable
from pathlib import Path

import torch

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # what the kernel takes for "set the peak to what is resident now"


def resident_bytes() -> int:
    """What is resident now. Raises ValueError where the system does not say."""
    return _field("VmRSS")


def peak_resident_bytes() -> int:
    """The most since the process began, or since `forget_peak`. Raises ValueError where the system does not say."""
    return _field("VmHWM")


def forget_peak() -> None:
    """Let the peak count from here. Raises OSError where the system does not allow it."""
    RESET.write_text(RESET_PEAK)


def peak_gib(call: Callable[[], object], device: torch.device) -> float | None:
    """GiB at the most while `call` runs: tensors on CUDA, resident pages of the process on a Linux CPU; None elsewhere."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) / 2**30
    try:
        forget_peak()
    except OSError:
        call()
        return None
    call()
    return peak_resident_bytes() / 2**30


def _field(name: str) -> int:
    for line in STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"{STATUS}: no {name}; memory is measured on Linux")
