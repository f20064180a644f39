"""Tensor cores of a warp: mma.sync on 16 x 8 results, of 16-bit values or of TF32.

A lane holds the values that PTX gives it (groups of four lanes a row of A, a column of B). Products are exact and summed in
float64 with what they are added to, then rounded to fp32 once: a device rounds a few times, in an order that is not published.
"""

import numpy as np

from kaleido_fast.bench.ptx.block import LANES, Action, Block, Decoder, Mask
from kaleido_fast.bench.ptx.program import Instruction
from kaleido_fast.bench.ptx.transfers import listed

LANE = np.arange(LANES)
GROUP, PLACE = LANE // 4, LANE % 4  # of a lane: which row or column, and which of the four that share it
TF32_BITS = np.uint32(0xFFFFE000)  # what tensor cores read of an fp32
KINDS = ("bf16", "f16", "tf32")


def multiply_add(instruction: Instruction) -> Action:
    """mma: D = A B + C, of m16n8k16 (bf16, f16), m16n8k8 (tf32, bf16, f16) or m16n8k4 (tf32).

    Raises:
        ValueError: of another shape or type.
    """
    modifiers = instruction.opcode.split(".")[1:]
    shape, kind = next((part for part in modifiers if part.startswith("m16n8k")), ""), modifiers[-2]
    results = (modifiers[-4:] == ["f32", kind, kind, "f32"])
    if not shape or kind not in KINDS or not results or modifiers[-6:-4] != ["row", "col"]:
        raise ValueError(f"ptx: {instruction.opcode} is not emulated; {instruction.where}")
    depth = int(shape.removeprefix("m16n8k"))
    to, a, b, c = (listed(operand) for operand in instruction.operands)
    pack = 1 if kind == "tf32" else 2  # values of a register

    def act(block: Block, mask: Mask) -> None:
        if mask is not None and not mask.all():
            raise RuntimeError(f"ptx: tensor cores are used by some threads alone; {instruction.where}")
        left, right, sums = (np.zeros((block.warps, *sides)) for sides in ((16, depth), (depth, 8), (16, 8)))
        for number, register in enumerate(a):
            for half, value in enumerate(_values(block, register, kind)):
                left[:, GROUP + 8 * (number % 2), PLACE * pack + half + 4 * pack * (number // 2)] = value
        for number, register in enumerate(b):
            for half, value in enumerate(_values(block, register, kind)):
                right[:, PLACE * pack + half + 4 * pack * number, GROUP] = value
        with np.errstate(all="ignore"):
            for number, register in enumerate(c):
                sums[:, GROUP + 8 * (number // 2), 2 * PLACE + number % 2] = block.read(register, 32, "f").reshape(-1, LANES)
            sums = (sums + left @ right).astype(np.float32)
        for number, register in enumerate(to):
            result = sums[:, GROUP + 8 * (number // 2), 2 * PLACE + number % 2]
            block.write(register, np.ascontiguousarray(result).reshape(-1).view(np.uint32), mask)

    return act


def _values(block: Block, register: str, kind: str) -> list[np.ndarray]:
    """(warps, lanes) float64: the numbers of a register, the lower half's first."""
    bits = block.read(register, 32)
    if kind == "tf32":
        halves = [(bits & TF32_BITS).view(np.float32)]
    elif kind == "bf16":
        halves = [np.ascontiguousarray(half).view(np.float32) for half in (bits << np.uint32(16), bits & np.uint32(0xFFFF0000))]
    else:
        halves = list(np.ascontiguousarray(bits).view(np.float16).reshape(-1, 2).T)
    return [half.astype(np.float64).reshape(block.warps, LANES) for half in halves]


DECODERS: dict[str, Decoder] = {"mma": multiply_add}
