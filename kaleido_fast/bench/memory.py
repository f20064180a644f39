"""Peak memory of a call: allocated on a GPU, of the whole process on a CPU."""

from collections.abc import Callable
from pathlib import Path

import torch

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # what the kernel takes for "set the peak to what is resident now"


def peak_gib(call: Callable[[], object], device: torch.device) -> float | None:
    """GiB at the most while `call` runs: tensors on CUDA, resident pages of the process on a Linux CPU; None elsewhere."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) / 2**30
    try:
        RESET.write_text(RESET_PEAK)
    except OSError:
        call()
        return None
    call()
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 2**20
