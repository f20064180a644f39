"""Floating-point instructions of PTX, rounded as a device rounds them; conversions to and from bf16, TF32 and integers."""

import re
from collections.abc import Callable

import numpy as np

from kaleido_fast.bench.ptx.block import FLOAT, SIGNED, UNSIGNED, Action, Block, Decoder, Mask
from kaleido_fast.bench.ptx.operations import convert_integer
from kaleido_fast.bench.ptx.program import Instruction
from kaleido_fast.bench.ptx.transfers import bits_of

LEAST_NORMAL = np.float32(1.17549435e-38)  # below it .ftz gives zero
BF16_NAN = 0x7FFF
TYPES = r"(?:bf16x2|f16x2|bf16|tf32|[usf]\d+)"
Numbers = np.ndarray


def _in_double(function: Callable[..., Numbers]) -> Callable[..., Numbers]:
    """fp32 of what the numbers give in float64: rounded once, as fused and approximate instructions nearly are."""
    return lambda *numbers: function(*(number.astype(np.float64) for number in numbers)).astype(np.float32)


FUNCTIONS: dict[str, Callable[..., Numbers]] = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "div": lambda a, b: a / b,
    "fma": _in_double(lambda a, b, c: a * b + c), "abs": np.abs, "max": np.fmax, "min": np.fmin, "sqrt": np.sqrt,
    "rsqrt": _in_double(lambda a: 1 / np.sqrt(a)), "ex2": _in_double(np.exp2), "lg2": _in_double(np.log2),
    "rcp": _in_double(lambda a: 1 / a),
}
ROUNDINGS: dict[str, Callable[[Numbers], Numbers]] = {"rzi": np.trunc, "rni": np.rint, "rmi": np.floor, "rpi": np.ceil}


def arithmetic(instruction: Instruction) -> Action:
    """add, mul, fma and the like in f16, f32 or f64, with .ftz and .NaN; f32x2 on both halves."""
    name, *modifiers = instruction.opcode.split(".")
    kind, (to, *sources) = modifiers[-1], instruction.operands
    if kind == "f32x2":
        return _pairs(name, to, sources)
    bits, flushes = bits_of(kind), "ftz" in modifiers
    function = {"max": np.maximum, "min": np.minimum}[name] if "NaN" in modifiers else FUNCTIONS.get(name)
    if name == "neg":  # of the bits: the sign of a NaN turns too
        sign = UNSIGNED[bits](1 << bits - 1)
        return lambda block, mask: block.write(to, block.read(sources[0], bits) ^ sign, mask)
    assert function is not None, instruction.text

    def act(block: Block, mask: Mask) -> None:
        with np.errstate(all="ignore"):
            numbers = [block.read(source, bits, "f") for source in sources]
            result = function(*map(_flushed, numbers)) if flushes else function(*numbers)
            result = _flushed(result) if flushes else result
            block.write(to, result.astype(FLOAT[bits]).view(UNSIGNED[bits]), mask)

    return act


def _flushed(numbers: Numbers) -> Numbers:
    return np.where(np.abs(numbers) < LEAST_NORMAL, np.copysign(np.float32(0), numbers), numbers)


def _pairs(name: str, to: str, sources: list[str]) -> Action:
    def act(block: Block, mask: Mask) -> None:
        halves = [np.ascontiguousarray(block.read(source, 64)).view(np.float32) for source in sources]
        with np.errstate(all="ignore"):
            block.write(to, np.ascontiguousarray(FUNCTIONS[name](*halves)).view(np.uint64), mask)

    return act


def convert(instruction: Instruction) -> Action:
    """cvt with a floating type on either side; between integers as operations.py has it."""
    modifiers = instruction.opcode.split(".")[1:]
    into, of = (modifier for modifier in modifiers if re.fullmatch(TYPES, modifier))
    (to, *sources), bits = instruction.operands, bits_of(of)
    if "f" not in into + of:
        return convert_integer(instruction)

    def rounded(block: Block) -> Numbers:
        """Bits of the type asked for."""
        if into.endswith("x2"):
            high, low = (_sixteen(block.read(source, 32, "f"), into) for source in sources)
            return low.astype(np.uint32) | high.astype(np.uint32) << np.uint32(16)
        if into == "tf32":
            return _tf32(block.read(sources[0], 32))
        if into == "bf16":
            return _sixteen(block.read(sources[0], 32, "f"), into)
        if of == "bf16":
            return block.read(sources[0], 16).astype(np.uint32) << np.uint32(16)
        number = block.read(sources[0], bits, of[0])
        if into[0] == "f":
            return number.astype(FLOAT[bits_of(into)]).view(UNSIGNED[bits_of(into)])
        return _to_integer(number, into, next(modifier for modifier in modifiers if modifier in ROUNDINGS))

    def act(block: Block, mask: Mask) -> None:
        with np.errstate(all="ignore"):
            block.write(to, rounded(block), mask)

    return act


def _sixteen(numbers: Numbers, kind: str) -> Numbers:
    """(threads,) uint16: fp32 rounded to the nearest bf16 or fp16, ties to even."""
    if kind.startswith("f16"):
        return numbers.astype(np.float16).view(np.uint16)
    bits = np.ascontiguousarray(numbers, np.float32).view(np.uint32)
    half_up = bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))
    return np.where(np.isnan(numbers), np.uint16(BF16_NAN), (half_up >> np.uint32(16)).astype(np.uint16))


def _tf32(bits: Numbers) -> Numbers:
    """(threads,) uint32: fp32 rounded to ten bits behind the point, ties away from zero, the rest 0."""
    is_number = (bits & np.uint32(0x7FFFFFFF)) <= np.uint32(0x7F800000)
    return np.where(is_number, bits + np.uint32(0x1000) & np.uint32(0xFFFFE000), np.uint32(0x7FFFE000))


def _to_integer(numbers: Numbers, kind: str, rounding: str) -> Numbers:
    """Rounded as said, held inside the type; a NaN is 0."""
    bits = bits_of(kind)
    least, most = (0, 2**bits - 1) if kind[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    whole = np.clip(np.nan_to_num(ROUNDINGS[rounding](numbers.astype(np.float64))), least, most)
    return whole.astype((UNSIGNED if kind[0] == "u" else SIGNED)[bits]).view(UNSIGNED[bits])


FLOATING = ("f16", "f32", "f64", "f32x2")  # last modifier of what `arithmetic` takes
DECODERS: dict[str, Decoder] = {
    "cvt": convert, **dict.fromkeys(("ex2", "lg2", "rsqrt", "sqrt", "rcp", "div", "fma"), arithmetic),
}
