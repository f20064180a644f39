"""What the threads of a warp or a block do together: shuffles, votes, reductions, barriers."""

import numpy as np

from kaleido_fast.bench.ptx.block import LANES, Action, Block, Decoder, Mask
from kaleido_fast.bench.ptx.program import Instruction


def barrier(instruction: Instruction) -> Action:
    """bar.sync of the block, bar.warp.sync of a warp."""
    if "warp" in instruction.opcode.split("."):
        return lambda block, mask: block.shared.warp_barrier()

    def meet(block: Block, mask: Mask) -> None:
        if mask is not None and not mask.all():
            raise RuntimeError(f"ptx: a barrier that some threads never reach; {instruction.where}")
        block.shared.block_barrier()

    return meet


def shuffle(instruction: Instruction) -> Action:
    """shfl: up, down, bfly, idx."""
    mode, (to, value, step, control) = instruction.opcode.split(".")[2], instruction.operands[:4]
    to, _, inside = to.partition("|")

    def act(block: Block, mask: Mask) -> None:
        values = block.read(value, 32)
        steps, controls = block.read(step, 32).astype(np.int64) & 31, block.read(control, 32).astype(np.int64)
        lane, clamp, segment = block.lane, controls & 31, controls >> 8 & 31
        last, first = lane & segment | clamp & ~segment, lane & segment
        source = {"up": lane - steps, "down": lane + steps, "bfly": lane ^ steps, "idx": first | steps & ~segment}[mode]
        fits = source >= last if mode == "up" else source <= last
        source = np.where(fits, source, lane)
        block.write(to, values[block.thread // LANES * LANES + source], mask)
        if inside:
            block.write(inside, fits, mask)
        block.shared.warp_barrier()

    return act


def vote(instruction: Instruction) -> Action:
    """vote: ballot, any, all, uni."""
    mode, (to, value) = instruction.opcode.split(".")[2], instruction.operands[:2]

    def act(block: Block, mask: Mask) -> None:
        _require_all(mask, instruction)
        votes = block.predicate(value).reshape(block.warps, LANES)
        if mode == "ballot":
            result = (votes.astype(np.uint64) << np.arange(LANES, dtype=np.uint64)).sum(axis=1).astype(np.uint32)
        else:
            any_of, all_of = votes.any(axis=1), votes.all(axis=1)
            result = {"any": any_of, "all": all_of, "uni": all_of | ~any_of}[mode]
        block.write(to, np.repeat(result, LANES), mask)
        block.shared.warp_barrier()

    return act


def reduce(instruction: Instruction) -> Action:
    """redux.sync: add, min, max, and, or of a warp's numbers."""
    modifiers, (to, value) = instruction.opcode.split(".")[1:], instruction.operands[:2]
    how, kind = modifiers[1], modifiers[-1][0]
    functions = {"add": np.add, "min": np.minimum, "max": np.maximum, "and": np.bitwise_and, "or": np.bitwise_or}
    if kind == "f" and "NaN" not in modifiers:
        functions |= {"min": np.fmin, "max": np.fmax}

    def act(block: Block, mask: Mask) -> None:
        _require_all(mask, instruction)
        numbers = block.read(value, 32, kind if kind in "sf" else "u").reshape(block.warps, LANES)
        result = functions[how].reduce(numbers, axis=1).astype(numbers.dtype)
        block.write(to, np.repeat(result, LANES).view(np.uint32), mask)
        block.shared.warp_barrier()

    return act


def _require_all(mask: Mask, instruction: Instruction) -> None:
    if mask is not None and not mask.all():
        raise RuntimeError(f"ptx: a warp's operation that some threads do not reach; {instruction.where}")


DECODERS: dict[str, Decoder] = {"bar": barrier, "barrier": barrier, "shfl": shuffle, "vote": vote, "redux": reduce}
