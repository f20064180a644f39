"""Integers, bits, comparisons and predicates of PTX, thread by thread."""

import re
from collections.abc import Callable

import numpy as np

from kaleido_fast.bench.ptx.block import SIGNED, UNSIGNED, Action, Block, Decoder, Mask
from kaleido_fast.bench.ptx.program import Instruction
from kaleido_fast.bench.ptx.transfers import bits_of, register_bits

Numbers = np.ndarray
COMPARISONS: dict[str, Callable[[Numbers, Numbers], Numbers]] = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "lo": np.less, "ls": np.less_equal, "hi": np.greater, "hs": np.greater_equal,
}
LOGIC = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor, "not": np.logical_not}
ARITHMETIC: dict[str, Callable[..., Numbers]] = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "mad": lambda a, b, c: a * b + c,
    "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor, "not": np.invert, "neg": lambda a: np.zeros_like(a) - a,
}


def integer(instruction: Instruction) -> Action:
    """add, sub, mul.lo, mad.lo, and, or, xor, not, neg; min, max, abs; of numbers or predicates; mul.wide and mul.hi."""
    name, *modifiers = instruction.opcode.split(".")
    kind, (to, *sources) = modifiers[-1], instruction.operands
    if kind == "pred":
        return lambda block, mask: block.write(to, LOGIC[name](*(block.read(source, 32) for source in sources)), mask)
    if kind == "s16x2":
        return _two_halves(to, sources)
    bits, sign = bits_of(kind), "s" if kind[0] == "s" else "u"
    if "wide" in modifiers:
        return _wide(name, to, sources, bits, sign)
    if "hi" in modifiers:
        return _high(name, to, sources, bits, sign)
    if name in ("min", "max", "abs"):
        function: Callable[..., Numbers] = {"min": np.minimum, "max": np.maximum, "abs": np.abs}[name]
    else:
        function, sign = ARITHMETIC[name], "u"  # the same bits, signed or not

    def act(block: Block, mask: Mask) -> None:
        block.write(to, function(*(block.read(source, bits, sign) for source in sources)).view(UNSIGNED[bits]), mask)

    return act


def _two_halves(to: str, sources: list[str]) -> Action:
    def act(block: Block, mask: Mask) -> None:
        a, b = (block.read(source, 32) for source in sources)
        half = np.uint32(16)
        low, high = a + b & np.uint32(0xFFFF), (a >> half) + (b >> half) & np.uint32(0xFFFF)
        block.write(to, low | high << half, mask)

    return act


def _wide(name: str, to: str, sources: list[str], bits: int, sign: str) -> Action:
    double = (SIGNED if sign == "s" else UNSIGNED)[2 * bits]

    def act(block: Block, mask: Mask) -> None:
        a, b = (block.read(source, bits, sign).astype(double) for source in sources[:2])
        product = (a * b).view(UNSIGNED[2 * bits])
        block.write(to, product + block.read(sources[2], 2 * bits) if name == "mad" else product, mask)

    return act


def _high(name: str, to: str, sources: list[str], bits: int, sign: str) -> Action:
    def act(block: Block, mask: Mask) -> None:
        a, b = (block.read(source, bits, sign) for source in sources[:2])
        if bits == 64:
            pairs = zip(a.tolist(), b.tolist(), strict=True)
            high = np.array([x * y >> 64 & 2**64 - 1 for x, y in pairs], np.uint64)
        else:
            wide = np.int64 if sign == "s" else np.uint64
            high = (a.astype(wide) * b.astype(wide) >> wide(bits)).astype(UNSIGNED[bits])
        block.write(to, high + block.read(sources[2], bits) if name == "mad" else high, mask)

    return act


def compare(instruction: Instruction) -> Action:
    """setp, with a second predicate joined to it where there is one."""
    modifiers = instruction.opcode.split(".")[1:]
    how, kind, (to, left, right, *rest) = modifiers[0], modifiers[-1], instruction.operands
    bits, sign = bits_of(kind), {"f": "f", "s": "s"}.get(kind[0], "u")
    unordered = sign == "f" and len(how) == 3 and how.endswith("u")
    joined = next((modifier for modifier in modifiers[1:-1] if modifier in LOGIC), None)

    def act(block: Block, mask: Mask) -> None:
        a, b = block.read(left, bits, sign), block.read(right, bits, sign)
        no_number = np.isnan(a) | np.isnan(b) if sign == "f" else np.zeros(block.threads, bool)
        if how in ("nan", "num"):
            result = no_number if how == "nan" else ~no_number
        else:
            result = COMPARISONS[how[:-1] if unordered else how](a, b)
            result = result | no_number if unordered else result & ~no_number
        if joined:
            result = LOGIC[joined](result, block.predicate(rest[0]))
        block.write(to, result, mask)

    return act


def select(instruction: Instruction) -> Action:
    """selp."""
    (to, yes, no, predicate), bits = instruction.operands, bits_of(instruction.opcode.split(".")[-1])
    return lambda block, mask: block.write(
        to, np.where(block.predicate(predicate), block.read(yes, bits), block.read(no, bits)), mask)


def shift(instruction: Instruction) -> Action:
    """shl, shr: past the width nothing is left, or the sign."""
    name, kind = instruction.opcode.split(".")[0], instruction.opcode.split(".")[-1]
    (to, value, by), bits, sign = instruction.operands, bits_of(kind), "s" if kind[0] == "s" else "u"

    def act(block: Block, mask: Mask) -> None:
        number, steps = block.read(value, bits, sign), block.read(by, 32).astype(np.int64)
        inside = np.minimum(steps, bits - 1)
        if name == "shr" and sign == "s":
            result = (number >> inside.astype(number.dtype)).view(UNSIGNED[bits])
        else:
            number, inside = number.view(UNSIGNED[bits]), inside.astype(UNSIGNED[bits])
            result = np.where(steps >= bits, 0, number << inside if name == "shl" else number >> inside).astype(UNSIGNED[bits])
        block.write(to, result, mask)

    return act


def funnel(instruction: Instruction) -> Action:
    """shf: two words shifted as one, clamped or wrapped."""
    modifiers, (to, low, high, by) = instruction.opcode.split(".")[1:], instruction.operands

    def act(block: Block, mask: Mask) -> None:
        both = block.read(low, 32).astype(np.uint64) | block.read(high, 32).astype(np.uint64) << np.uint64(32)
        steps = block.read(by, 32).astype(np.uint64)
        steps = steps & np.uint64(31) if "wrap" in modifiers else np.minimum(steps, np.uint64(32))
        result = both >> steps if "r" in modifiers else both << steps >> np.uint64(32)
        block.write(to, (result & np.uint64(2**32 - 1)).astype(np.uint32), mask)

    return act


def permute(instruction: Instruction) -> Action:
    """prmt: four bytes of eight, each as it is or as its sign."""
    to, low, high, choice = instruction.operands

    def act(block: Block, mask: Mask) -> None:
        a, b = (block.read_part(operand, 32).astype(np.uint64) for operand in (low, high))
        selector = block.read(choice, 32).astype(np.uint64)
        both, result = a | b << np.uint64(32), np.zeros(block.threads, np.uint64)
        for place in range(4):
            pick = selector >> np.uint64(4 * place) & np.uint64(15)
            byte = both >> np.uint64(8) * (pick & np.uint64(7)) & np.uint64(255)
            sign = np.where(byte & np.uint64(128), np.uint64(255), np.uint64(0))
            result |= np.where(pick & np.uint64(8), sign, byte) << np.uint64(8 * place)
        block.write(to, result.astype(np.uint32), mask)

    return act


def count_bits(instruction: Instruction) -> Action:
    """popc, clz, brev."""
    name, (to, value), bits = instruction.opcode.split(".")[0], instruction.operands, bits_of(instruction.opcode.split(".")[-1])
    function = {"popc": int.bit_count, "clz": lambda number: bits - number.bit_length(),
                "brev": lambda number: int(format(number, f"0{bits}b")[::-1], 2)}[name]
    out = UNSIGNED[bits if name == "brev" else 32]
    return lambda block, mask: block.write(
        to, np.array([function(number) for number in block.read(value, bits).tolist()], out), mask)


def field(instruction: Instruction) -> Action:
    """bfe: a field of bits, with its sign where the type has one."""
    (to, value, first, length), kind = instruction.operands, instruction.opcode.split(".")[-1]
    bits = bits_of(kind)

    def act(block: Block, mask: Mask) -> None:
        number = block.read(value, bits).astype(np.uint64)
        start, count = (block.read(operand, 32).astype(np.uint64) & np.uint64(255) for operand in (first, length))
        ones = (np.uint64(1) << count) - np.uint64(1)
        result = number >> start & ones
        if kind[0] == "s":
            top = np.minimum(start + np.maximum(count, np.uint64(1)) - np.uint64(1), np.uint64(bits - 1))
            negative = (number >> top & np.uint64(1)).astype(bool) & (count > 0)
            result = np.where(negative, result | ~ones, result)
        block.write(to, result.astype(UNSIGNED[bits]), mask)

    return act


def lookup(instruction: Instruction) -> Action:
    """lop3: any function of three bits, by its table."""
    (to, *sources), table = instruction.operands[:4], int(instruction.operands[4], 0)

    def act(block: Block, mask: Mask) -> None:
        a, b, c = (block.read(source, 32) for source in sources)
        result = np.zeros(block.threads, np.uint32)
        for row in range(8):
            if table >> row & 1:
                result |= (a if row & 4 else ~a) & (b if row & 2 else ~b) & (c if row & 1 else ~c)
        block.write(to, result, mask)

    return act


def convert_integer(instruction: Instruction) -> Action:
    """cvt between integers of any width."""
    kinds = re.findall(r"\b[us]\d+\b", instruction.opcode.replace(".", " "))
    to, source = instruction.operands
    into, of = kinds
    wide = max(bits_of(into), register_bits(to, bits_of(into)))

    def act(block: Block, mask: Mask) -> None:
        number = block.read(source, bits_of(of), of[0])
        narrow = number.astype(SIGNED[bits_of(into)] if of[0] == "s" else UNSIGNED[bits_of(into)])
        block.write(to, narrow.view(UNSIGNED[bits_of(into)]).astype(UNSIGNED[wide]), mask)

    return act


DECODERS: dict[str, Decoder] = {
    **dict.fromkeys(("add", "sub", "mul", "mad", "and", "or", "xor", "not", "neg", "min", "max", "abs"), integer),
    "setp": compare, "selp": select, "shl": shift, "shr": shift, "shf": funnel, "prmt": permute, "popc": count_bits,
    "clz": count_bits, "brev": count_bits, "bfe": field, "lop3": lookup,
}
