"""The processes of a run: one alone, or those that torchrun, the deepspeed launcher or SLURM started."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist

from kaleido_fast.options import OptionError, message_parts
from kaleido_fast.training.workers.launcher import name_worker, workers_here

T = TypeVar("T")
COMPILE_THREADS, MOST_COMPILE_THREADS = "TORCHINDUCTOR_COMPILE_THREADS", 32  # torch's name, and the most it takes by itself


class SharedError(OptionError):
    """A mistake that all workers know of: each has raised it."""


@dataclass(frozen=True, slots=True)
class Workers:
    """This process's place among the workers of a run, and what they tell each other on the host (gloo)."""

    rank: int
    count: int
    device: torch.device = torch.device("cpu")
    store: dist.Store | None = field(default=None, compare=False)  # outlives the group: there a worker says why it fails

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

    def from_first(self, value: T) -> T:
        """The first worker's `value` (plain), on all workers."""
        if self.count == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
        return values[0]

    def from_all(self, value: T) -> list[T]:
        """Every worker's `value` (plain), by rank, on all workers."""
        if self.count == 1:
            return [value]
        values: list[T] = [value] * self.count
        dist.all_gather_object(values, value)
        return values

    def gathered(self, values: np.ndarray) -> np.ndarray:
        """All workers' `values`, of one shape and number type, one behind the other by rank, on all workers."""
        if self.count == 1:
            return values
        own = torch.from_numpy(np.ascontiguousarray(values))
        parts = [torch.empty_like(own) for _ in range(self.count)]
        dist.all_gather(parts, own)
        return torch.cat(parts).numpy()

    def merged(self, values: dict[str, str]) -> dict[str, str]:
        """All workers' entries."""
        return {key: value for part in self.from_all(values) for key, value in part.items()}

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """A block that all workers run and leave together; the inside must not make them meet.

        Raises:
            SharedError: on all of them, where one met a ValueError or OSError inside; names the first that did.
        """
        mistake: Exception | None = None
        try:
            yield
        except (ValueError, OSError) as error:
            if self.count == 1:
                raise
            mistake = error
        mistakes = self.from_all(None if mistake is None else message_parts(mistake))
        for rank, parts in enumerate(mistakes):
            if parts is not None:
                raise SharedError(*([f"worker {rank}: "] if rank else []), *parts) from mistake


def start_workers(device: str, timeout_s: float) -> Workers:
    """Join the process group that the launcher's environment describes; without one, make a group of one.

    Raises:
        ValueError: only a part of the launcher's variables is set, or there is no GPU for this worker, or the others cannot be
            met.
    """
    timeout = timedelta(seconds=timeout_s)
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    several = name_worker(os.environ)
    place = own_device(device)
    if dist.is_initialized():
        return Workers(dist.get_rank(), dist.get_world_size(), place)
    if several:
        workers = _meet(backend, place, timeout)
        _share_cores(device)
        return workers
    os.environ["LOCAL_RANK"] = "0"  # DeepSpeed refuses to start without it
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, timeout=timeout)
    return Workers(0, 1, place)


def _meet(backend: str, device: torch.device, timeout: timedelta) -> Workers:
    try:
        store, rank, count = next(dist.rendezvous("env://", timeout=timeout))
        store.set_timeout(timeout)
        dist.init_process_group(backend, store=dist.PrefixStore("group", store), rank=rank, world_size=count, timeout=timeout)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"worker {os.environ['RANK']} cannot meet the others at {os.environ['MASTER_ADDR']}:"
                         f"{os.environ['MASTER_PORT']} ({reason}); give another MASTER_PORT where it is taken") from None
    return Workers(rank, count, device, dist.PrefixStore("kaleido_fast", store))


def own_device(device: str) -> torch.device:
    """What `run.device` names: the CPU, or this worker's GPU, made the current one.

    Raises:
        ValueError: there is no GPU, or none for this worker.
    """
    if device == "cpu":
        return torch.device("cpu")
    count, local_rank = torch.cuda.device_count(), int(os.environ.get("LOCAL_RANK", "0"))
    if not count:
        raise ValueError("run.device=cuda needs a CUDA device, none found; set run.device=cpu")
    if local_rank >= count == 1 and "SLURM_STEP_ID" in os.environ:  # --gpus-per-task: each task sees its own GPU alone
        local_rank = 0
        os.environ["LOCAL_RANK"] = "0"  # DeepSpeed takes its device from it
    if local_rank >= count:
        raise ValueError(f"run.device=cuda: worker {local_rank} of this machine has no GPU, it has {count}; start at most "
                         f"{count} a machine")
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def _share_cores(device: str) -> None:
    """Divide the cores among the workers of this machine where nobody said how: for computing on a CPU (torchrun says that
    itself), and for torch's compiler, which otherwise begins a process a core, up to 32, for each worker."""
    share = max(1, len(os.sched_getaffinity(0)) // workers_here(os.environ))
    if device == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(share)
    os.environ.setdefault(COMPILE_THREADS, str(min(share, MOST_COMPILE_THREADS)))
