"""drop_ inside a kernel (dropout.py says which value is dropped), bit for bit the same.

A counter of Philox gives the words of four neighbouring columns, so a tile draws a quarter as many counters as
it has values; that needs H to be a multiple of 4.
"""

import triton
import triton.language as tl


@triton.jit
def dropped(
    x,  # (ROWS, BLOCK) fp32
    row,  # (ROWS, 1) int64, packed row of each
    key_ptr,  # (3,) int64: seed, step, stream
    scale,  # 1 / (1 - rate)
    THRESHOLD: tl.constexpr,  # round(rate * 2^32); 0 draws nothing
    HIDDEN: tl.constexpr,
):
    if THRESHOLD > 0:
        rows: tl.constexpr = x.shape[0]
        block: tl.constexpr = x.shape[1]
        counter = row * (HIDDEN // 4) + tl.arange(0, block // 4)[None, :]
        word0, word1, word2, word3 = tl.philox(
            tl.load(key_ptr), counter.to(tl.uint32), (counter >> 32).to(tl.uint32),
            tl.load(key_ptr + 1).to(tl.uint32), tl.load(key_ptr + 2).to(tl.uint32),
        )
        words = tl.reshape(tl.join(tl.join(word0, word2), tl.join(word1, word3)), (rows, block))
        x = tl.where(words < THRESHOLD, 0.0, x * scale)
    return x
