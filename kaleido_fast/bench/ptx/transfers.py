"""Moves, parameters, loads and stores, matrices to and from shared memory."""

import re
from collections.abc import Callable

import numpy as np

from kaleido_fast.bench.ptx.block import LANES, SIGNED, UNSIGNED, Action, Block, Decoder, Mask
from kaleido_fast.bench.ptx.memory import OutOfBounds
from kaleido_fast.bench.ptx.program import Instruction

SECTOR = 32  # bytes that caches and memory hand over at least
MATRIX_ROW = 16  # bytes: eight values of 16 bits
MoveTile = Callable[[Block, np.ndarray, np.ndarray, str, bool], None]  # addresses of rows, their lanes, register, transposed


def bits_of(kind: str) -> int:
    """32 of `b32`, `s32`, `f32`."""
    number = re.search(r"\d+", kind)
    assert number is not None, kind
    return int(number[0])


def register_bits(name: str, bits: int) -> int:
    """Of a register by its name; of an operand that is none, `bits`."""
    return {"%rs": 16, "%rd": 64}.get(name[:3], 32) if name.startswith("%") else bits


def listed(operand: str) -> list[str]:
    """The registers of `{%r1, %r2}`, or of one."""
    return [name.strip() for name in operand.strip("{} ").split(",")]


def move(instruction: Instruction) -> Action:
    """mov: of a register, or between one wide register and several narrow ones."""
    kind = instruction.opcode.split(".")[-1]
    to, source = instruction.operands
    if kind == "pred":  # a constant -1 is true
        return lambda block, mask: block.write(to, block.read(source, 32) != 0, mask)
    bits = bits_of(kind)
    parts = listed(to if to.startswith("{") else source)
    width = bits // len(parts)

    def split(block: Block, mask: Mask) -> None:
        value = block.read(source, bits).astype(np.uint64)
        for number, part in enumerate(parts):
            block.write(part, (value >> np.uint64(width * number) & np.uint64((1 << width) - 1)).astype(UNSIGNED[width]), mask)

    def join(block: Block, mask: Mask) -> None:
        value = np.zeros(block.threads, np.uint64)
        for number, part in enumerate(parts):
            value |= block.read_part(part, width).astype(np.uint64) << np.uint64(width * number)
        block.write(to, value.astype(UNSIGNED[bits]), mask)

    if to.startswith("{"):
        return split
    if source.startswith("{"):
        return join
    return lambda block, mask: block.write(to, block.read(source, bits), mask)


def load(instruction: Instruction) -> Action:
    """ld, of a parameter, of global or of shared memory."""
    modifiers = instruction.opcode.split(".")[1:]
    return _parameter(instruction) if "param" in modifiers else _access(instruction, modifiers, is_load=True)


def store(instruction: Instruction) -> Action:
    """st, to global or shared memory."""
    return _access(instruction, instruction.opcode.split(".")[1:], is_load=False)


def _parameter(instruction: Instruction) -> Action:
    kind, (to, source) = instruction.opcode.split(".")[-1], instruction.operands
    bits, name = bits_of(kind), source.strip("[] ").split("+")[0]
    width = register_bits(to, bits)

    def act(block: Block, mask: Mask) -> None:
        value = block.parameters[name] & (1 << bits) - 1
        if kind[0] == "s" and value >> bits - 1:
            value |= (1 << width) - (1 << bits)
        block.write(to, np.full(block.threads, value, UNSIGNED[max(width, bits)]), None)

    return act


def _place(operand: str) -> tuple[str, int]:
    """Register (or the symbol of shared memory) and offset of `[%r1 + 4]`."""
    place = re.match(r"\[\s*([%\w.$]+)\s*(?:\+\s*(-?\w+))?\s*\]", operand)
    assert place is not None, operand
    return place[1], int(place[2] or "0", 0)


def _access(instruction: Instruction, modifiers: list[str], is_load: bool) -> Action:
    kind, where = modifiers[-1], instruction.where
    in_shared, bits = "shared" in modifiers, bits_of(kind)
    lanes_of_vector = next((int(part[1:]) for part in modifiers if re.fullmatch(r"v\d", part)), 1)
    values, place = instruction.operands if is_load else reversed(instruction.operands)
    registers, (base, offset) = listed(values), _place(place)
    each = bits // 8
    size = each * lanes_of_vector
    assert len(registers) == lanes_of_vector, instruction.text

    def addresses(block: Block, threads: np.ndarray) -> np.ndarray:
        start = block.read(base, 64) if base.startswith("%") else np.zeros(block.threads, np.uint64)
        at = (start + np.uint64(offset & 2**64 - 1))[threads]
        at = at & np.uint64(2**32 - 1) if in_shared else at
        if (at % np.uint64(size)).any():
            raise OutOfBounds(f"{size} bytes at an address that is no multiple of it; {where}")
        return at

    def read(block: Block, mask: Mask) -> None:
        threads = np.arange(block.threads) if mask is None else np.flatnonzero(mask)
        at = addresses(block, threads)
        if in_shared:
            data = block.shared.read(at, size, threads, where)
        else:
            data = block.memory.load(at, size, where)
            block.bytes_read += _sector_bytes(at, threads)
        for number, register in enumerate(registers):
            part = np.ascontiguousarray(data[:, each * number : each * (number + 1)]).view(UNSIGNED[bits])[:, 0]
            width = max(register_bits(register, bits), bits)
            part = part.view(SIGNED[bits]).astype(SIGNED[width]).view(UNSIGNED[width]) if kind[0] == "s" else part.astype(
                UNSIGNED[width])
            whole = np.zeros(block.threads, part.dtype)
            whole[threads] = part
            block.write(register, whole, mask)

    def write(block: Block, mask: Mask) -> None:
        threads = np.arange(block.threads) if mask is None else np.flatnonzero(mask)
        columns = []
        for register in registers:
            value = block.read(register, max(bits, register_bits(register, bits)))[threads].astype(UNSIGNED[bits])
            columns.append(np.ascontiguousarray(value).view(np.uint8).reshape(len(threads), each))
        data, at = np.concatenate(columns, axis=1), addresses(block, threads)
        if in_shared:
            block.shared.write(at, data, threads, where)
        else:
            block.memory.store(at, data, where)
            block.bytes_written += _sector_bytes(at, threads)

    return read if is_load else write


def _sector_bytes(addresses: np.ndarray, threads: np.ndarray) -> int:
    """What an access asks of the caches: the sectors that each warp touches; an aligned access lies in one."""
    return SECTOR * len(np.unique(addresses // np.uint64(SECTOR) * np.uint64(LANES) + (threads // LANES).astype(np.uint64)))


def load_matrix(instruction: Instruction) -> Action:
    """ldmatrix: 8 x 8 tiles of 16 bits, a row an address, to the lanes in the order that tensor cores want."""
    def act(block: Block, rows: np.ndarray, threads: np.ndarray, register: str, transposed: bool) -> None:
        tile = np.ascontiguousarray(block.shared.read(rows, MATRIX_ROW, threads, instruction.where)).view(np.uint16)
        lanes = np.arange(LANES)
        tile = tile.reshape(8, 8).T if transposed else tile.reshape(8, 8)
        low, high = (tile[lanes // 4, 2 * (lanes % 4) + half].astype(np.uint32) for half in (0, 1))
        _of_warp(block, register, threads[0] // LANES, low | high << np.uint32(16))

    return _matrices(instruction, act, is_load=True)


def store_matrix(instruction: Instruction) -> Action:
    """stmatrix: the way back."""
    def act(block: Block, rows: np.ndarray, threads: np.ndarray, register: str, transposed: bool) -> None:
        first, lanes = threads[0] // LANES * LANES, np.arange(LANES)
        pair, tile = block.read(register, 32)[first : first + LANES], np.zeros((8, 8), np.uint16)
        tile[lanes // 4, 2 * (lanes % 4)] = pair & np.uint32(0xFFFF)
        tile[lanes // 4, 2 * (lanes % 4) + 1] = pair >> np.uint32(16)
        tile = tile.T if transposed else tile
        data = np.ascontiguousarray(tile).view(np.uint8).reshape(8, MATRIX_ROW)
        block.shared.write(rows, data, threads, instruction.where)

    return _matrices(instruction, act, is_load=False)


def _matrices(instruction: Instruction, act: MoveTile, is_load: bool) -> Action:
    modifiers = instruction.opcode.split(".")[1:]
    values, place = instruction.operands if is_load else reversed(instruction.operands)
    registers, (base, offset) = listed(values), _place(place)

    def all_tiles(block: Block, mask: Mask) -> None:
        if mask is not None and not mask.all():
            raise RuntimeError(f"ptx: a matrix is moved by some threads alone; {instruction.where}")
        address = block.read(base, 64) + np.uint64(offset & 2**64 - 1) & np.uint64(2**32 - 1)
        if (address % np.uint64(MATRIX_ROW)).any():
            raise OutOfBounds(f"a matrix row at an address that is no multiple of {MATRIX_ROW}; {instruction.where}")
        for warp in range(block.warps):
            for number, register in enumerate(registers):
                threads = np.arange(8) + LANES * warp + 8 * number
                act(block, address[threads], threads, register, "trans" in modifiers)

    return all_tiles


def _of_warp(block: Block, register: str, warp: int, values: np.ndarray) -> None:
    whole, lanes = np.zeros(block.threads, np.uint32), np.zeros(block.threads, bool)
    whole[warp * LANES : (warp + 1) * LANES], lanes[warp * LANES : (warp + 1) * LANES] = values, True
    block.write(register, whole, lanes)


DECODERS: dict[str, Decoder] = {
    "mov": move, "ld": load, "st": store, "ldmatrix": load_matrix, "stmatrix": store_matrix,
}
