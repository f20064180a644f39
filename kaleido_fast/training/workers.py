"""The processes of a run: one alone, or those that torchrun, the deepspeed launcher or SLURM started."""

import os
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist


@dataclass(frozen=True, slots=True)
class Workers:
    """This process's place among the workers of a run, and the host-side sums between them (gloo)."""

    rank: int
    count: int

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def total(self, values: np.ndarray) -> np.ndarray:
        """Sum of `values` (float64) over all workers; on the host, so that no step waits for the device."""
        if self.count == 1:
            return values
        tensor = torch.from_numpy(values.astype(np.float64))
        dist.all_reduce(tensor)
        return tensor.numpy()

    def from_first(self, value: float) -> float:
        """The first worker's `value`, on all workers."""
        if self.count == 1:
            return value
        tensor = torch.tensor([value], dtype=torch.float64)
        dist.broadcast(tensor, src=0)
        return float(tensor)

    def merged(self, values: dict[str, str]) -> dict[str, str]:
        """All workers' entries."""
        if self.count == 1:
            return values
        parts: list[dict[str, str]] = [{}] * self.count
        dist.all_gather_object(parts, values)
        return {key: value for part in parts for key, value in part.items()}

    def wait(self) -> None:
        """Return when every worker has come here."""
        if self.count > 1:
            dist.barrier()


def start_workers(device: str, timeout_s: float) -> Workers:
    """Join the process group that the launcher's environment describes; without one, make a group of one.

    Raises:
        ValueError: only a part of the launcher's variables is set.
    """
    timeout = timedelta(seconds=timeout_s)
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    if dist.is_initialized():
        return Workers(dist.get_rank(), dist.get_world_size())
    if "WORLD_SIZE" in os.environ:
        missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
        if missing:
            raise ValueError(f"WORLD_SIZE is set but {', '.join(missing)} is not; start workers with torchrun")
        if device == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group(backend, timeout=timeout)
    else:
        os.environ["LOCAL_RANK"] = "0"  # DeepSpeed refuses to start without it
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, timeout=timeout)
    return Workers(dist.get_rank(), dist.get_world_size())
