"""One thread block of an emulated kernel: the registers of all its threads as vectors, and the run of its instructions.

Threads go through the code together. Where they part, those at the lowest instruction go first, until all are at one again;
so code that only some threads run is run by them alone, as on a device.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kaleido_fast.bench.ptx.memory import GlobalMemory, SharedMemory
from kaleido_fast.bench.ptx.program import Instruction, Program

UNSIGNED = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}
SIGNED = {8: np.int8, 16: np.int16, 32: np.int32, 64: np.int64}
FLOAT = {16: np.float16, 32: np.float32, 64: np.float64}
KINDS: dict[str, Any] = {"u": UNSIGNED, "s": SIGNED, "f": FLOAT}
LANES = 32
MOST_INSTRUCTIONS = 2_000_000  # of a block: a loop that does not end
UNDEFINED = 0xDEADBEEFDEADBEEF  # what a register holds that was never written
LEAST_SHARED = 16

Mask = np.ndarray | None  # (threads,) bool; None: all of them
Action = Callable[["Block", Mask], None]
Decoder = Callable[[Instruction], Action]


class Block:
    """Runs a program for one block.

    Args:
        arguments: the kernel's, as integers: addresses, or the bits of a number.
        place, grid: the block's x, y, z and how many there are.
        decode: what an instruction does.
    """

    def __init__(
        self, program: Program, decode: Decoder, memory: GlobalMemory, arguments: Sequence[int], place: tuple[int, int, int],
        grid: tuple[int, int, int], shared_bytes: int,
    ) -> None:
        self.program, self.memory, self._decode = program, memory, decode
        self.threads, self.warps = program.threads, program.threads // LANES
        self.thread = np.arange(self.threads, dtype=np.uint32)
        self.lane = (self.thread % LANES).astype(np.int64)
        self.parameters = {name: value & (1 << bits) - 1
                           for (name, bits), value in zip(program.parameters, arguments, strict=True)}
        self.reports: Counter[str] = Counter()
        self.shared = SharedMemory(max(shared_bytes, LEAST_SHARED), (self.thread // LANES).astype(np.int32), self.reports)
        self.times = [0] * len(program.instructions)  # how often each instruction was executed, once for the block
        self.bytes_read, self.bytes_written = 0, 0
        self._special = {"%tid.x": self.thread, "%laneid": self.lane.astype(np.uint32), "%ntid.x": self._all(self.threads)}
        for axis, number, count in zip("xyz", place, grid, strict=True):
            self._special |= {f"%ctaid.{axis}": self._all(number), f"%nctaid.{axis}": self._all(count)}
        self._registers: dict[str, np.ndarray] = {}
        self._constants: dict[tuple[str, int], np.ndarray] = {}

    @property
    def executed(self) -> Counter[str]:
        """Instructions by opcode."""
        executed: Counter[str] = Counter()
        for instruction, times in zip(self.program.instructions, self.times, strict=True):
            executed[instruction.opcode] += times
        return +executed

    # ---- operands

    def read(self, operand: str, bits: int, kind: str = "u") -> np.ndarray:
        """(threads,) of `bits` as unsigned, signed or floating (`kind` u, s, f); bool for a predicate."""
        if operand in ("true", "false"):
            return np.full(self.threads, operand == "true")
        value = self._register(operand, bits) if operand[0] == "%" else self._constant(operand, bits)
        if value.dtype == bool:
            return value
        if value.dtype.itemsize * 8 != bits:
            value = value.astype(UNSIGNED[bits])
        return value if kind == "u" else value.view(KINDS[kind][bits])

    def read_part(self, operand: str, bits: int) -> np.ndarray:
        """`read` of what becomes a part of a wider register: parts of no use are packed as they are, and not reported."""
        is_unknown = operand[0] == "%" and operand not in self._registers and operand not in self._special
        return self._undefined(bits) if is_unknown else self.read(operand, bits)

    def predicate(self, operand: str) -> np.ndarray:
        """(threads,) bool, `!` in front of it or not."""
        value = self._registers[operand.lstrip("!")]
        return ~value if operand.startswith("!") else value

    def write(self, register: str, value: np.ndarray, mask: Mask) -> None:
        """Set a register of the threads in `mask`; `_` takes nothing."""
        if register == "_":
            return
        if mask is not None:
            before = self._registers.get(register)
            merged = np.zeros(self.threads, value.dtype) if before is None else before.astype(value.dtype)
            merged[mask] = value[mask]
            value = merged
        self._registers[register] = value

    def _register(self, name: str, bits: int) -> np.ndarray:
        value = self._registers.get(name, self._special.get(name))
        if value is None:
            self.reports[f"register {name} is read that nobody wrote"] += 1
            return self._undefined(bits)
        return value

    def _undefined(self, bits: int) -> np.ndarray:
        return np.full(self.threads, UNDEFINED & (1 << bits) - 1, UNSIGNED[bits])

    def _constant(self, text: str, bits: int) -> np.ndarray:
        if (text, bits) not in self._constants:
            self._constants[text, bits] = self._parsed(text, bits)
        return self._constants[text, bits]

    def _parsed(self, text: str, bits: int) -> np.ndarray:
        if text.startswith(("0f", "0d")):
            return np.full(self.threads, int(text[2:], 16), UNSIGNED[32 if text[1] == "f" else 64])
        if re.fullmatch(r"-?(0x[0-9A-Fa-f]+|\d+)U?", text):
            return np.full(self.threads, int(text.rstrip("U"), 0) & (1 << bits) - 1, UNSIGNED[bits])
        if text.startswith("global_smem"):
            return np.full(self.threads, int(text.partition("+")[2] or "0", 0), UNSIGNED[bits])
        raise ValueError(f"ptx: operand {text} is of no kind that is known here")

    def _all(self, number: int) -> np.ndarray:
        return np.full(self.threads, number, np.uint32)

    # ---- the run

    def run(self, actions: list[Action | None]) -> "Block":
        """To the end. `actions` holds what instructions were decoded to, for all blocks of the program.

        Raises:
            OutOfBounds: an access outside of the tensors or not aligned.
            RuntimeError: a loop that does not end.
        """
        code, count = self.program.instructions, 0
        at: int = 0  # where all threads are, while `each` is None
        each: np.ndarray | None = None  # (threads,) where each of them is
        done, all_done = np.zeros(self.threads, bool), False
        while not all_done:
            active: Mask = None
            if each is not None:
                at = int(each[~done].min())
                active = ~done & (each == at)
                if active.all():
                    active = each = None
            instruction, count = code[at], count + 1
            self.times[at] += 1
            if count > MOST_INSTRUCTIONS:
                raise RuntimeError(f"ptx: {self.program.name} runs over {MOST_INSTRUCTIONS:,} instructions; "
                                   f"{instruction.where}")
            mask = self._guarded(instruction, active)
            if not instruction.moves_on:
                arrived = np.ones(self.threads, bool) if active is None else active
                taken = arrived if mask is None else mask
                target = self._target(instruction, taken, at)
                if instruction.opcode == "ret":
                    done |= taken
                    all_done = bool(done.all())
                elif each is None and (taken.all() or not taken.any()):
                    at = target if taken.any() else at + 1
                    continue
                each = np.full(self.threads, at) if each is None else each
                each = np.where(arrived, np.where(taken, target, at + 1), each)
                continue
            if mask is None or mask.any():
                action = actions[at] or self._decode(instruction)
                actions[at] = action
                action(self, mask)
            if each is None:
                at += 1
            else:
                each = np.where(active if active is not None else True, at + 1, each)
        return self

    def _target(self, instruction: Instruction, taken: np.ndarray, at: int) -> int:
        """Where a branch leads; behind a return there is nothing."""
        if instruction.opcode == "ret" or not taken.any():
            return at + 1
        if instruction.opcode.startswith("brx"):
            return self._indexed(instruction, taken)
        return self.program.labels[instruction.operands[0]]

    def _guarded(self, instruction: Instruction, active: Mask) -> Mask:
        if instruction.predicate is None:
            return active
        guard = self._registers[instruction.predicate]
        guard = ~guard if instruction.negated else guard
        return guard if active is None else active & guard

    def _indexed(self, instruction: Instruction, taken: np.ndarray) -> int:
        numbers: Any = np.unique(self.read(instruction.operands[0], 32)[taken])
        if len(numbers) != 1:
            raise RuntimeError(f"ptx: threads part at an indexed branch, which is not emulated; {instruction.where}")
        return self.program.labels[self.program.tables[instruction.operands[1]][int(numbers[0])]]
