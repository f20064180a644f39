"""Peak memory of a call: allocated on a GPU, of the whole process on a CPU."""

from collections.abc import Callable

import torch

from kaleido_fast.process_memory import forget_peak, peak_resident_bytes


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
