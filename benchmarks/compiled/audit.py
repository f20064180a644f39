"""Builds a kernel ahead of time, without a GPU, and reads from the machine code what it became.

Registers, stack and spills, shared memory, tensor-core instructions, and global loads and stores by width in bits.
Figures are static: an instruction in a loop counts once.
"""

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

ARCHITECTURES = (80, 90, 100)
TENSOR_CORE = (
    "HMMA", "IMMA", "DMMA", "QMMA", "OMMA", "HGMMA", "QGMMA", "IGMMA", "UTCHMMA", "UTCQMMA", "UTCIMMA",
)


@dataclass(frozen=True)
class Build:
    """A kernel as the engine launches it, and what its machine code must be like on every architecture.

    Args:
        name: kernel and variant, such as "cut bf16 P=48".
        signature: parameter: Triton type, "*bf16", "i32", ...; in any order.
        constants: the constexpr parameters.
        divisible: parameters that are multiples of 16, as torch's pointers are; without it there are no wide loads.
        loads, stores: every width in bits that global loads and stores have, and no other.
        max_registers: for a thread.
        tensor_cores: whether matrix products run there.
    """

    name: str
    kernel: JITFunction
    signature: Mapping[str, str]
    constants: Mapping[str, object]
    divisible: Iterable[str]
    loads: frozenset[int]
    stores: frozenset[int]
    max_registers: int
    num_warps: int = 4
    num_stages: int = 3
    tensor_cores: bool = False
    maxnreg: int | None = None  # the launch's own limit, where it sets one


@dataclass(frozen=True)
class Audit:
    """What one build became on one architecture."""

    name: str
    architecture: int
    registers: int
    stack_bytes: int
    spills: int  # instructions that load from or store to local memory
    shared_bytes: int
    loads: Mapping[int, int]  # width in bits: instructions
    stores: Mapping[int, int]
    atomics: int
    tensor_core_instructions: int
    instructions: int
    opcodes: Mapping[str, int] = field(repr=False)


def audit(build: Build, architecture: int) -> Audit:
    """Compile for `sm_<architecture>` and read the code."""
    compiled = compile_ahead(build, architecture)
    usage, code = disassemble(compiled.asm["cubin"])
    return read_code(build.name, architecture, compiled.metadata.shared, usage, code)


def compile_ahead(build: Build, architecture: int) -> triton.compiler.CompiledKernel:
    """The compiled kernel; it cannot be launched without a driver."""
    names = build.kernel.arg_names
    given = {**build.signature, **dict.fromkeys(build.constants, "constexpr")}
    if sorted(given) != sorted(names):
        wrong = sorted(set(given) ^ set(names))
        raise ValueError(f"audit: {build.name}: signature and constants must name each parameter once, {wrong} differ")
    source = ASTSource(
        build.kernel, {name: given[name] for name in names}, constexprs=dict(build.constants),
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in build.divisible},
    )
    options = {"num_warps": build.num_warps, "num_stages": build.num_stages, "maxnreg": build.maxnreg}
    return triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)


def machine_code(compiled: triton.compiler.CompiledKernel) -> str:
    """The disassembly, an instruction a line, with the labels that jumps name."""
    return disassemble(compiled.asm["cubin"])[1]


def problems(build: Build, found: Audit) -> list[str]:
    """What the machine code is that it should not be; empty where all is well."""
    where = f"{build.name} on sm_{found.architecture}"
    checks = (
        ("spills and stack", (found.spills, found.stack_bytes), (0, 0)),
        ("load widths", sorted(found.loads), sorted(build.loads)),
        ("store widths", sorted(found.stores), sorted(build.stores)),
        ("tensor cores used", found.tensor_core_instructions > 0, build.tensor_cores),
    )
    wrong = [f"{where}: {what} {got}, expected {want}" for what, got, want in checks if got != want]
    if found.registers > build.max_registers:
        wrong.append(f"{where}: {found.registers} registers, at most {build.max_registers} expected")
    return wrong


def as_row(found: Audit) -> dict[str, object]:
    """A row of results/compiled.json."""
    return {
        "kernel": found.name, "sm": found.architecture, "registers": found.registers, "stack_bytes": found.stack_bytes,
        "spills": found.spills, "shared_bytes": found.shared_bytes,
        "loads": {str(width): count for width, count in found.loads.items()},
        "stores": {str(width): count for width, count in found.stores.items()}, "atomics": found.atomics,
        "tensor_core_instructions": found.tensor_core_instructions, "instructions": found.instructions,
    }


def read_code(name: str, architecture: int, shared_bytes: int, usage: str, code: str) -> Audit:
    """From what `cuobjdump --dump-resource-usage` and `nvdisasm -c` print; shared memory is asked for at launch."""
    figures = {key: int(value) for key, value in re.findall(r"\b(REG|STACK):(\d+)", usage)}
    operations = _OPERATION.findall(code)
    opcodes = Counter(operation.partition(".")[0] for operation in operations)
    return Audit(
        name=name, architecture=architecture, registers=figures["REG"], stack_bytes=figures["STACK"],
        spills=opcodes["LDL"] + opcodes["STL"], shared_bytes=shared_bytes,
        loads=_widths(operations, ("LDG", "LDGSTS")), stores=_widths(operations, ("STG",)),
        atomics=opcodes["ATOMG"] + opcodes["ATOM"] + opcodes["RED"] + opcodes["REDG"],
        tensor_core_instructions=sum(opcodes[opcode] for opcode in TENSOR_CORE),
        instructions=len(operations) - opcodes["NOP"], opcodes=dict(opcodes.most_common()),
    )


# `        /*0250*/              @!P0 LDG.E.128 R4, [R2.64] ;`: the address, a predicate, the operation.
_OPERATION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+\{?\s*(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*(?:\.[A-Za-z0-9_]+)*)")
_WIDTHS = {"U8": 8, "S8": 8, "U16": 16, "S16": 16, "64": 64, "128": 128, "256": 256}


def _widths(operations: Iterable[str], opcodes: tuple[str, ...]) -> dict[int, int]:
    found: Counter[int] = Counter()
    for operation in operations:
        opcode, *modifiers = operation.split(".")
        if opcode in opcodes:
            found[next((_WIDTHS[modifier] for modifier in modifiers if modifier in _WIDTHS), 32)] += 1
    return dict(sorted(found.items()))


def disassemble(cubin: bytes) -> tuple[str, str]:
    """What the kernel takes, and its instructions under the lines of source that they come from."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        usage = _run(knobs.nvidia.cuobjdump.path, "--dump-resource-usage", str(path))
        return usage, _run(knobs.nvidia.nvdisasm.path, "-g", "-c", str(path))


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
