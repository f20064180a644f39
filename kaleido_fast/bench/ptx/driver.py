"""A driver for Triton 3.6 through which its own launch path (binder, specialisation, compiler, launcher) runs on CPU tensors.

    with emulated(90) as device:
        softmax_kl_triton(prediction, target, weight)
    device.launches["_softmax_kl_kernel"].instructions

Launches run in the emulator, or nowhere (`run=False`): then what was compiled is counted alone.
"""

import ctypes
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import CompiledKernel
from triton.runtime import driver

from kaleido_fast.bench.ptx.block import Action, Block
from kaleido_fast.bench.ptx.decode import decode
from kaleido_fast.bench.ptx.memory import GlobalMemory
from kaleido_fast.bench.ptx.program import Program, parse

# What a device answers when Triton asks: registers, spills, the most threads of a block; an H100's numbers.
LOADED = (1, 1, 0, 0, 1024)
PROPERTIES = {"max_shared_mem": 232448, "multiprocessor_count": 132, "max_num_regs": 65536, "warpSize": 32,
              "sm_clock_rate": 1, "mem_clock_rate": 1, "mem_bus_width": 1}
SCRATCH = (0, 0)  # addresses of global and profile scratch, behind the kernel's own arguments


@dataclass(slots=True)
class Launches:
    """What the launches of one kernel did."""

    blocks: int = 0
    warps: int = 0  # of a block
    instructions: int = 0  # of the blocks; times `warps` of the machine
    executed: Counter[str] = field(default_factory=Counter)  # by opcode
    bytes_read: int = 0  # of global memory, in sectors that a warp touches
    bytes_written: int = 0

    @property
    def warp_instructions(self) -> int:
        """Instructions that schedulers issue."""
        return self.instructions * self.warps

    @property
    def barriers(self) -> int:
        """Block-wide ones."""
        return self.executed["bar.sync"]

    def add(self, block: Block) -> None:
        """Count a block that has run."""
        self.blocks, self.warps = self.blocks + 1, block.warps
        self.instructions += block.executed.total()
        self.executed.update(block.executed)
        self.bytes_read += block.bytes_read
        self.bytes_written += block.bytes_written


class EmulatedDevice:
    """Programs, launches and reports of all kernels since it was installed."""

    def __init__(self, run: bool = True) -> None:
        self.run = run
        self.launches: dict[str, Launches] = {}
        self.reports: Counter[str] = Counter()  # races and the like
        self.compiled: dict[str, set[_Launcher]] = {}  # by kernel, one each time it was compiled for other arguments
        self.programs: dict[str, Program] = {}  # by PTX
        self.times: dict[str, np.ndarray] = {}  # by PTX: how often all blocks have executed each instruction
        self._actions: dict[str, list[Action | None]] = {}

    @property
    def variants(self) -> Counter[str]:
        """How often each kernel that was launched has been compiled."""
        return Counter({name: len(launchers) for name, launchers in self.compiled.items()})

    def launch(self, launcher: "_Launcher", grid: tuple[int, int, int], arguments: tuple[Any, ...]) -> None:
        """All blocks of a launch, one after another."""
        metadata, ptx = launcher.metadata, launcher.ptx
        self.compiled.setdefault(metadata.name, set()).add(launcher)
        launches = self.launches.setdefault(metadata.name, Launches())
        if not self.run:
            return
        if ptx not in self.programs:
            self.programs[ptx] = parse(ptx)
            self._actions[ptx] = [None] * len(self.programs[ptx].instructions)
            self.times[ptx] = np.zeros(len(self.programs[ptx].instructions), np.int64)
        memory = GlobalMemory()
        values = [*_values(launcher.source.signature, arguments, memory), *SCRATCH]
        for number in range(grid[0] * grid[1] * grid[2]):
            place = (number % grid[0], number // grid[0] % grid[1], number // grid[0] // grid[1])
            block = Block(self.programs[ptx], decode, memory, values, place, grid, metadata.shared).run(self._actions[ptx])
            launches.add(block)
            self.times[ptx] += block.times
            self.reports.update({f"{metadata.name}: {report}": count for report, count in block.reports.items()})

    def forget(self) -> None:
        """Launches and reports so far."""
        self.launches.clear()
        self.reports.clear()
        for times in self.times.values():
            times[:] = 0

    def replace(self, ptx: str, number: int, instruction: Any) -> None:
        """Put another instruction in a program's place, to see what the checks say of it."""
        self.programs[ptx].instructions[number], self._actions[ptx][number] = instruction, None


def _values(signature: Mapping[str, str], arguments: tuple[Any, ...], memory: GlobalMemory) -> Iterator[int]:
    """A kernel's arguments as bits; its tensors go into `memory`, each from its first value to its last."""
    for (name, kind), value in zip(signature.items(), arguments, strict=True):
        if kind == "constexpr":
            continue
        if isinstance(value, Tensor):
            address, size = value.data_ptr(), _span(value)
            if size:
                memory.add(address, np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address)), name)
            yield address
        elif kind in ("fp32", "f32"):
            yield struct.unpack("<I", struct.pack("<f", value))[0]
        else:
            yield int(value)


def _span(tensor: Tensor) -> int:
    """Bytes from its first value to the end of its last, gaps between rows included."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (last + 1) * tensor.element_size() if tensor.numel() else 0


class _Utilities:
    def load_binary(self, name: str, kernel: bytes, shared: int, device: int) -> tuple[int, ...]:
        return LOADED

    def get_device_properties(self, device: int) -> dict[str, int]:
        return PROPERTIES


class _Launcher:
    """What Triton makes once for a compiled kernel and calls at each launch; the code comes in `_init_handles`."""

    def __init__(self, source: Any, metadata: Any) -> None:
        self.source, self.metadata, self.ptx, self.cubin = source, metadata, "", b""

    def __call__(self, x: int, y: int, z: int, stream: int, function: int, packed: Any, *hooks_and_arguments: Any) -> None:
        _INSTALLED[-1].launch(self, (x, y, z), hooks_and_arguments[3:])


_INSTALLED: list[EmulatedDevice] = []  # a kernel that was compiled keeps its launcher; the device is the innermost open one


class _Driver:
    """What Triton asks of an active driver. A device's number is its architecture: each has its own compiled kernels."""

    launcher_cls = _Launcher

    def __init__(self, arch: int) -> None:
        self.arch, self.utils = arch, _Utilities()

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.arch, 32)

    def get_current_device(self) -> int:
        return self.arch

    def get_current_stream(self, device: int) -> int:
        return 0

    def set_current_device(self, device: int) -> None:
        pass

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def get_device_interface(self) -> Any:
        return torch.cuda


@contextmanager
def emulated(arch: int = 90, run: bool = True) -> Iterator[EmulatedDevice]:
    """Triton launches on CPU tensors, compiled for sm_`arch`, in the emulator while this is open."""
    device, before, inner = EmulatedDevice(run), driver._active, CompiledKernel._init_handles

    def init_handles(kernel: CompiledKernel) -> None:
        """A launcher is made without the code it launches: it gets it here."""
        inner(kernel)
        if isinstance(kernel._run, _Launcher):
            kernel._run.ptx, kernel._run.cubin = kernel.asm["ptx"], kernel.asm["cubin"]

    CompiledKernel._init_handles = init_handles
    _INSTALLED.append(device)
    driver.set_active(_Driver(arch))
    try:
        yield device
    finally:
        _INSTALLED.pop()
        driver.set_active(before)
        CompiledKernel._init_handles = inner
