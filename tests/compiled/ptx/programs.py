"""Small PTX programs, run in one block of threads over an array of words."""

from collections import Counter

import numpy as np

from kaleido_fast.bench.ptx.block import Block
from kaleido_fast.bench.ptx.decode import decode
from kaleido_fast.bench.ptx.memory import GlobalMemory
from kaleido_fast.bench.ptx.program import Program, parse

ADDRESS = 0x1000
HEADER = """
.visible .entry toy(.param .u64 .ptr .global .align 4 toy_param_0)
.reqntid {threads}
{{
    .reg .pred %p<9>;
    .reg .b32 %r<99>;
    .loc 1 7 0
    ld.param.u64 %rd1, [toy_param_0];
    mov.u32 %r1, %tid.x;
    mad.wide.u32 %rd2, %r1, 4, %rd1;
"""


def program_of(code: str, threads: int = 64) -> Program:
    return parse(HEADER.format(threads=threads) + code + "\nret;\n}")


def run(code: str, words: np.ndarray, threads: int = 64, shared_bytes: int = 1024) -> tuple[np.ndarray, Counter[str], Block]:
    """The words after `code`, in which %r1 is the thread and %rd2 the address of its word; what was reported; the block."""
    program = program_of(code, threads)
    memory, data = GlobalMemory(), words.copy().view(np.uint8)
    memory.add(ADDRESS, data, "words")
    block = Block(program, decode, memory, [ADDRESS], (0, 0, 0), (1, 1, 1), shared_bytes)
    block.run([None] * len(program.instructions))
    return data.view(words.dtype), block.reports, block


def floats(code: str, *columns: np.ndarray) -> np.ndarray:
    """%r9 of `code`, as fp32, where %r2, %r3, %r4 hold a thread's values of the columns (fp32, as many as threads)."""
    threads = len(columns[0])
    loads = "".join(f"ld.global.b32 %r{2 + number}, [%rd2+{4 * threads * number}];\n" for number in range(len(columns)))
    words = np.concatenate([*columns, np.zeros(threads, np.float32)]).astype(np.float32)
    words, _, _ = run(f"{loads}{code}\nst.global.b32 [%rd2+{4 * threads * len(columns)}], %r9;", words, threads)
    return words[-threads:]
