"""masking.py in Triton, one sample a program: the walk through the aligned pairs and the fill, bit for bit.

There is no sort. A pair is one int64 that says all of it: 32 bits of priority, then its number from the end (so that
ties fall to the lower token, then the lower position), then the drawn side. The walk is at most as many rounds of an
arg-max over the (T, 64) pairs as the budgets' sum; the fill ranks by comparing all with all.
"""

import triton
import triton.language as tl

from kaleido_fast.kernels import masking, philox
from kaleido_fast.kernels.philox_triton import draw
from kaleido_fast.kernels.plan_rules import ALIGNMENT_BITS, CAMOUFLAGE_GRID, GREY_GRID

POSITIONS = tl.constexpr(ALIGNMENT_BITS)
_OPEN, _PASSED, _TAKEN = tl.constexpr(masking.OPEN), tl.constexpr(masking.PASSED), tl.constexpr(masking.TAKEN)
_PAIR = tl.constexpr(philox.PAIR)
_CAMOUFLAGE_CELLS, _GREY_CELLS = tl.constexpr(CAMOUFLAGE_GRID**2), tl.constexpr(GREY_GRID**2)
_GONE = tl.constexpr(-1)  # a pair that is not there, below every other
_LAST = tl.constexpr(2**62)  # what may not be filled in, behind every other


@triton.jit
def level_of(position, CAMOUFLAGE_AT: tl.constexpr, GREY_AT: tl.constexpr, BLANK_AT: tl.constexpr,
             BLANK_CELLS: tl.constexpr):
    """1 camouflage, 2 grey, 3 blank, 0 none of them: int32, of the shape of `position`."""
    level = tl.where((position >= CAMOUFLAGE_AT) & (position < CAMOUFLAGE_AT + _CAMOUFLAGE_CELLS), 1, 0)
    level = tl.where((position >= GREY_AT) & (position < GREY_AT + _GREY_CELLS), 2, level)
    return tl.where((position >= BLANK_AT) & (position < BLANK_AT + BLANK_CELLS), 3, level)


@triton.jit
def room_of(level, camouflage_room, grey_room, blank_room):
    """Slots that the level may still give, of the shape of `level`."""
    room = tl.where(level == 1, camouflage_room, 0)
    return tl.where(level == 3, blank_room, tl.where(level == 2, grey_room, room))


@triton.jit
def pair_keys(alignment, seed, epoch, sample_key, BLOCK_T: tl.constexpr):
    """(BLOCK_T, 64) int64: the greatest is walked first; _GONE where (BLOCK_T,) `alignment` has no bit."""
    position = tl.arange(0, POSITIONS)[None, :]
    pair = tl.arange(0, BLOCK_T)[:, None] * POSITIONS + position
    priority, side, _, _ = draw(seed, epoch, sample_key, _PAIR, pair)
    rest = (BLOCK_T * POSITIONS - 1 - pair) * 2 + (side >> 31).to(tl.int32)
    keys = (priority.to(tl.int64) << 31) + rest
    return tl.where(((alignment[:, None] >> position) & 1) != 0, keys, _GONE)


@triton.jit
def walk(keys, level, token_room, camouflage_room, grey_room, blank_room, BLOCK_T: tl.constexpr):
    """Step 1 of SPEC 6: each pair in turn takes its token or its patch, passing over the other.

    Args:
        keys: (BLOCK_T, 64) int64, from pair_keys.
        level: (64,) int32, from level_of.
        token_room, camouflage_room, grey_room, blank_room: () int32, the budgets.
    Returns:
        token_state (BLOCK_T,) and patch_state (64,) int32; then the rooms that are left, in the order given.
    """
    token, position = tl.arange(0, BLOCK_T), tl.arange(0, POSITIONS)
    token_state = tl.full((BLOCK_T,), _OPEN, tl.int32)
    patch_state = tl.full((POSITIONS,), _OPEN, tl.int32)
    patch_room = room_of(level, camouflage_room, grey_room, blank_room)
    keys = tl.where(((token_room > 0) | (patch_room > 0))[None, :], keys, _GONE)
    first = tl.max(tl.max(keys, axis=1), axis=0)
    while first != _GONE:
        pair = BLOCK_T * POSITIONS - 1 - ((first & 0x7FFFFFFF) >> 1).to(tl.int32)
        is_token, is_patch = token == pair // POSITIONS, position == pair % POSITIONS
        its_level = tl.max(tl.where(is_patch, level, 0), axis=0)
        patch_fits = room_of(its_level, camouflage_room, grey_room, blank_room) > 0
        takes_token = tl.where((first & 1) != 0, token_room > 0, patch_fits == 0)
        takes_patch = takes_token == 0
        token_room -= takes_token.to(tl.int32)
        camouflage_room -= (takes_patch & (its_level == 1)).to(tl.int32)
        grey_room -= (takes_patch & (its_level == 2)).to(tl.int32)
        blank_room -= (takes_patch & (its_level == 3)).to(tl.int32)
        token_state = tl.where(is_token, tl.where(takes_token, _TAKEN, _PASSED), token_state)
        patch_state = tl.where(is_patch, tl.where(takes_token, _PASSED, _TAKEN), patch_state)
        # A side without room gets none later: its pairs can go for good.
        patch_room = room_of(level, camouflage_room, grey_room, blank_room)
        closed = is_patch | ((token_room == 0) & (patch_room == 0))
        keys = tl.where(is_token[:, None] | closed[None, :], _GONE, keys)
        first = tl.max(tl.max(keys, axis=1), axis=0)
    return token_state, patch_state, token_room, camouflage_room, grey_room, blank_room


@triton.jit
def fill(state, allowed, level, priority, room, BLOCK: tl.constexpr):
    """Step 2 of SPEC 6: (BLOCK,) bool, taken by the walk or here; each level apart, OPEN before PASSED.

    Args:
        state, level: (BLOCK,) int32. allowed: (BLOCK,) bool, what may be taken. BLOCK is at most 512.
        priority: (BLOCK,) uint32.
        room: (BLOCK,) int32 or (), how many the place's level may still take.
    """
    may_fill = allowed & (state != _TAKEN)
    floor = level.to(tl.int64) << 42
    order = (state.to(tl.int64) << 41) + ((priority ^ 0xFFFFFFFF).to(tl.int64) << 9) + tl.arange(0, BLOCK)
    key = tl.where(may_fill, floor + order, _LAST)
    is_before = (key[None, :] < key[:, None]) & (key[None, :] >= floor[:, None])
    rank = tl.sum(is_before.to(tl.int32), axis=1)
    return (state == _TAKEN) | (may_fill & (rank < room))
