"""philox.py in Triton: the same words, bit for bit."""

import triton
import triton.language as tl


@triton.jit
def draw(seed, epoch, key, STREAM: tl.constexpr, index):
    """The four words of SPEC 6's table, uint32, of the shape of `index`.

    Args:
        seed, epoch, key: () int64.
        STREAM: philox.PAIR, TOKEN, PATCH or SAMPLE.
        index: int32, any shape.
    """
    stream = (epoch * 16 + STREAM).to(tl.uint32)
    return tl.philox(seed, index.to(tl.uint32), stream, key.to(tl.uint32), (key >> 32).to(tl.uint32))


@triton.jit
def below(word, n):
    """The uniform integer below n, int32, that a uint32 word stands for (n < 2^31)."""
    return tl.umulhi(word, tl.full(word.shape, n, tl.uint32)).to(tl.int32)
