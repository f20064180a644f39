"""Random words, indexed and never consumed in sequence: Philox-4x32-10 (Salmon et al. 2011; SPEC 6).

The generator is a function of a 64-bit key and a 128-bit counter, so a draw depends on what it is for and on
nothing drawn before it. 32-bit words are held in int64; every bit is exact, on every device.
"""

import torch
from torch import Tensor

PAIR, TOKEN, PATCH, SAMPLE, MINING, FINE_TUNING = 0, 1, 2, 3, 4, 5  # streams of SPEC 6's table
FIELD, WORD = 6, 7  # of the fields and of the words of a text that training leaves out
TEXT_DRAW = 1  # index in the stream SAMPLE of the text that the host draws; kaleido tasks have the others
EVALUATION_EPOCH = 2**28 - 1  # of the plans that evaluation draws; training epochs stay below (SPEC 6)

_ROUNDS = 10
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_WORD = 0xFFFFFFFF

Integers = Tensor | int
Words = tuple[Tensor, Tensor, Tensor, Tensor]


def philox(
    key_low: Integers, key_high: Integers, c0: Integers, c1: Integers, c2: Integers, c3: Integers
) -> Words:
    """Four random words for each key and counter; the arguments broadcast.

    Args:
        key_low, key_high, c0, c1, c2, c3: int64, of which the low 32 bits count.
    Returns:
        Four int64 tensors in [0, 2^32), of the shape that the arguments broadcast to.
    """
    arguments = (key_low, key_high, c0, c1, c2, c3)
    k0, k1, c0, c1, c2, c3 = (torch.as_tensor(x, dtype=torch.int64) & _WORD for x in arguments)
    for _ in range(_ROUNDS):
        # An int64 product wraps: its low 64 bits are right, and the mask takes the sign off the high half.
        even, odd = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1 = ((odd >> 32) & _WORD) ^ c1 ^ k0, odd & _WORD
        c2, c3 = ((even >> 32) & _WORD) ^ c3 ^ k1, even & _WORD
        k0, k1 = (k0 + _KEY_STEPS[0]) & _WORD, (k1 + _KEY_STEPS[1]) & _WORD
    return c0, c1, c2, c3


def draw(seed: Integers, epochs: Integers, keys: Integers, stream: int, index: Integers) -> Words:
    """The words of SPEC 6's table: key = seed; counter = (index, epoch * 16 + stream, sample key).

    Args:
        seed: () int64, 64 bits.
        epochs: int64, at most `EVALUATION_EPOCH`.
        keys: int64 holding the bits of the sample keys.
        stream: `PAIR`, `TOKEN`, `PATCH` or `SAMPLE`.
        index: int64, what the draw is for inside its stream.
    Returns:
        Four int64 tensors in [0, 2^32), of the shape that epochs, keys and index broadcast to.
    """
    return philox(seed, seed >> 32, index, epochs * 16 + stream, keys, keys >> 32)


def below(word: Tensor, n: int) -> Tensor:
    """The uniform integer below n that a word stands for: (word * n) >> 32 (n < 2^31)."""
    return (word * n) >> 32
