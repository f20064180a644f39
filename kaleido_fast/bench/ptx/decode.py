"""What an instruction does: from its opcode to the function that does it, for all threads of a block at once."""

from kaleido_fast.bench.ptx import floats, matrix_operations, operations, transfers, warp_operations
from kaleido_fast.bench.ptx.block import Action
from kaleido_fast.bench.ptx.program import Instruction

DECODERS = (operations.DECODERS | floats.DECODERS | transfers.DECODERS | warp_operations.DECODERS
            | matrix_operations.DECODERS)


def decode(instruction: Instruction) -> Action:
    """The action of one instruction.

    Raises:
        ValueError: an instruction that is not emulated; none of ours has it today.
    """
    name, *modifiers = instruction.opcode.split(".")
    if modifiers and modifiers[-1] in floats.FLOATING and name in operations.DECODERS and name not in ("setp", "selp"):
        return floats.arithmetic(instruction)
    if name not in DECODERS:
        raise ValueError(f"ptx: {instruction.opcode} is not emulated; {instruction.where}")
    return DECODERS[name](instruction)
