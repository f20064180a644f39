"""What compiled kernels issue and move at the base shape, counted by running them in the emulator (kaleido_fast/bench/ptx).

The emulator counts instructions of PTX. What schedulers issue is the machine code that ptxas makes of it: each of its
instructions is taken to run as often as, on average, those of PTX from the same line of source do.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.compiled.audit import disassemble
from kaleido_fast.bench.kernel_cases import CUT_TASKS, MEAN, RULES, STD
from kaleido_fast.bench.ptx.driver import EmulatedDevice, emulated
from kaleido_fast.bench.ptx.program import Program
from kaleido_fast.kernels.cut_triton import cut_triton
from kaleido_fast.kernels.embed_backward_triton import embed_backward_triton
from kaleido_fast.kernels.embed_inputs import Inputs
from kaleido_fast.kernels.embed_triton import SAMPLES, embed_triton
from kaleido_fast.kernels.geometry import GRIDS, num_positions
from kaleido_fast.kernels.plan_outputs import PlanInputs
from kaleido_fast.kernels.plan_rules import GROUP
from kaleido_fast.kernels.plan_triton import plan_triton
from kaleido_fast.kernels.row_sums_triton import CHUNK
from kaleido_fast.kernels.softmax_kl_triton import softmax_kl_triton

HIDDEN, TOKENS, SIDE, PATCH, FEATURES = 768, 64, 240, 48, 2048  # H, T, S, P, F
PLACES = 2  # of the text, and as many positions: what a program does is the same at each
LOGITS = 2  # rows of softmax_kl
BF16, FP32 = torch.bfloat16, torch.float32
PLACE = re.compile(r'//## File "(?:[^"]*/)?([^"/]+)", line (\d+)')
OPERATION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+\{?\s*(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)")


@dataclass(frozen=True)
class Workload:
    """One operation at the base shape, on as little as shows what it costs."""

    operation: str
    launch: Callable[[], object]
    units: Mapping[str, tuple[str, int]]  # by kernel: of what the figures are, and how many of it are launched


def workloads() -> dict[str, Workload]:
    """By name, in the order of the table."""
    number = SAMPLES * PLACES
    places = {"_text_kernel": ("place of a text", number), "_patch_kernel": ("patch", number)}
    gradients = {"_text_backward_kernel": ("place of a text", number), "_patch_backward_kernel": ("patch", number),
                 "_runs_kernel": ("key", 2 * number), "_join_kernel": ("chunk of keys", 2 * (number // CHUNK - 1))}
    logits = {"_softmax_kl_kernel": ("row", LOGITS)}
    return {
        "plan": Workload("plan", _plan, {"plan_kernel": ("sample", GROUP)}),
        "cut bf16": Workload("cut", lambda: _cut(BF16), {"cut_kernel": ("sample", 1)}),
        "cut fp32": Workload("cut", lambda: _cut(FP32), {"cut_kernel": ("sample", 1)}),
        "embed bf16": Workload("embed", lambda: _embed(BF16, BF16, 0.1), places),
        "embed under autocast": Workload("embed", lambda: _embed(FP32, BF16, 0.1), places),
        "embed fp32 without dropout": Workload("embed", lambda: _embed(FP32, FP32, 0.0), places),
        "embed_backward bf16": Workload("embed_backward", lambda: _embed_backward(BF16), gradients),
        "embed_backward under autocast": Workload("embed_backward", lambda: _embed_backward(FP32), gradients),
        "softmax_kl bf16": Workload("softmax_kl", lambda: _softmax_kl(BF16, BF16), logits),
        "softmax_kl bf16 and fp32": Workload("softmax_kl", lambda: _softmax_kl(BF16, FP32), logits),
    }


def count(name: str, workload: Workload, architecture: int) -> list[dict[str, Any]]:
    """A row of issued.json for each kernel: figures of one unit.

    Raises:
        RuntimeError: the emulator reports something.
    """
    with emulated(architecture) as device:
        workload.launch()
    if device.reports:
        raise RuntimeError(f"issued: {name} on sm_{architecture}: {'; '.join(device.reports)}; run tests/compiled/ptx")
    return [_row(name, device, kernel, architecture, *unit) for kernel, unit in workload.units.items()]


def _row(name: str, device: EmulatedDevice, kernel: str, architecture: int, unit: str, number: int) -> dict[str, Any]:
    launches = device.launches[kernel]
    issued = sum(machine_instructions(device.programs[launcher.ptx], device.times[launcher.ptx], disassemble(launcher.cubin)[1])
                 for launcher in device.compiled[kernel])
    return {
        "case": name, "kernel": kernel.strip("_").removesuffix("_kernel"), "sm": architecture, "unit": unit,
        "warp_instructions": round(issued * launches.warps / number, 1),
        "warp_instructions_of_ptx": round(launches.warp_instructions / number, 1),
        "bytes_read": round(launches.bytes_read / number, 1), "bytes_written": round(launches.bytes_written / number, 1),
        "barriers": round(launches.barriers / number, 2),
    }


def machine_instructions(program: Program, times: np.ndarray, code: str) -> float:
    """How many instructions of `code` (what `nvdisasm -g -c` prints) the blocks execute together.

    Args:
        times: how often they have executed each of the program's.
    """
    lines = [(instruction.file, instruction.line) for instruction in program.instructions]
    written = Counter(lines)
    executed: Counter[tuple[str, str]] = Counter()
    for line, often in zip(lines, times.tolist(), strict=True):
        executed[line] += often
    total, each = 0.0, float(times[0])
    for line in _lines_of(code):
        each = executed[line] / written[line] if line in written else each  # a line that PTX lacks: as what is before it
        total += each
    return total


def _lines_of(code: str) -> Iterator[tuple[str, str]]:
    """File and line of each instruction; the padding behind the last one is none."""
    line = ("", "")
    for text in code.splitlines():
        if place := PLACE.search(text):
            line = place[1], place[2]
        elif (operation := OPERATION.search(text)) and operation[1] != "NOP":
            yield line


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _plan() -> None:
    """One group, its texts of 16 to 64 tokens, two aligned patches a token."""
    draw = _generator()

    def integers(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=draw)

    bits = integers(5, num_positions(), 2, GROUP, TOKENS)
    inputs = PlanInputs(
        tokens=integers(999, 30522, GROUP, TOKENS).int(), lengths=integers(16, TOKENS + 1, GROUP).int(),
        alignment=(1 << bits[0]) | (1 << bits[1]), keys=integers(-(2**62), 2**62, GROUP),
        products=integers(0, GROUP, GROUP), present=torch.ones(GROUP, dtype=torch.bool),
        epochs=torch.zeros(GROUP, dtype=torch.int64),
    )
    plan_triton(inputs, torch.tensor(1), RULES)


def _cut(dtype: torch.dtype) -> None:
    image = torch.randint(0, 256, (1, SIDE, SIDE, 3), dtype=torch.uint8, generator=_generator())
    labels, slots = torch.tensor([[1] * len(CUT_TASKS)], dtype=torch.int32), torch.tensor([[1, 9]], dtype=torch.int32)
    cut_triton(image, labels, slots, grids=GRIDS, tasks=CUT_TASKS, patch_size=PATCH, mean=MEAN, std=STD, dtype=dtype)


def _embed(tables: torch.dtype, rows: torch.dtype, dropout: float) -> None:
    inputs, num_packed = _inputs(tables, rows)
    embed_triton(inputs, num_packed, GRIDS, dropout, torch.tensor([1, 2, 3]), rows)


def _embed_backward(tables: torch.dtype) -> None:
    inputs, num_packed = _inputs(tables, BF16)
    dpacked = torch.randn(num_packed, HIDDEN, generator=_generator()).to(BF16)
    embed_backward_triton(dpacked, inputs, GRIDS, 0.1, torch.tensor([1, 2, 3]))


def _inputs(tables: torch.dtype, rows: torch.dtype) -> tuple[Inputs, int]:
    """As many samples as a program has, half of them shorter than the other half; the tensors, and N."""
    draw, shape = _generator(), (SAMPLES, PLACES)
    lengths = torch.arange(SAMPLES, dtype=torch.int32) % 2 + 1
    norms = 1 + len(GRIDS)

    def table(*sizes: int, dtype: torch.dtype = tables) -> Tensor:
        return torch.randn(*sizes, generator=draw).to(dtype)

    inputs = Inputs(
        torch.randint(0, 50, shape, dtype=torch.int32, generator=draw), lengths, table(SAMPLES * PLACES, HIDDEN, dtype=rows),
        torch.arange(SAMPLES * PLACES, dtype=torch.int32).view(shape), table(PLACES, HIDDEN), table(50, HIDDEN),
        table(TOKENS, HIDDEN), table(HIDDEN), table(norms, HIDDEN), table(norms, HIDDEN),
    )
    return inputs, int(lengths.sum()) + SAMPLES * PLACES


def _softmax_kl(prediction: torch.dtype, target: torch.dtype) -> None:
    logits = torch.randn(2, LOGITS, FEATURES, generator=_generator())
    softmax_kl_triton(logits[0].to(prediction), logits[1].to(target), torch.ones(LOGITS))


def of_cases(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str, int], Mapping[str, Any]]:
    """The rows by case, kernel and architecture."""
    return {(row["case"], row["kernel"], row["sm"]): row for row in rows}
