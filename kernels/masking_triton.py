"""masking.py in Triton, one sample a program: the walk through the aligned pairs and the fill, bit for bit.

There is no sort. A pair is one int64 key: 32 bits of priority, then its number from the end (so that ties fall to the
lower token, then the lower position), then the drawn side. The walk keeps a bound for each token: the best key its
pairs had when last looked at. Pairs only ever drop out, so the greatest bound, if it still stands, is the next pair to
walk; if not, its token is drawn for anew. Only tokens that have pairs and come to the top are ever drawn for. The levels'
rooms are a few bits each in one int32, and sets of positions a bit each in one int64.
"""

import triton
import triton.language as tl

from kaleido_fast.kernels import masking, philox
from kaleido_fast.kernels.philox_triton import draw
from kaleido_fast.kernels.plan_rules import ALIGNMENT_BITS

POSITIONS = tl.constexpr(ALIGNMENT_BITS)
OPEN, PASSED, TAKEN = tl.constexpr(masking.OPEN), tl.constexpr(masking.PASSED), tl.constexpr(masking.TAKEN)
ROWS = tl.constexpr(4)  # tokens drawn for at a time: 8 pairs a thread hide what each of Philox's rounds waits for

_PAIR = tl.constexpr(philox.PAIR)
_GONE = tl.constexpr(-1)  # below every key: no pair left
_NOT_DRAWN = tl.constexpr(2**30)  # a bit between a key's priority and its number: nothing is known of the token yet
_ALL_ONES = tl.constexpr(2**32 - 1 << 31)  # the greatest priority
_LAST = tl.constexpr(2**62)  # behind every key of the fill


@triton.jit
def holds(positions, position):
    """Whether a set, int64, holds `position`, int32 of any shape."""
    return ((tl.cast(positions, tl.int64) >> position.to(tl.int64)) & 1) != 0


@triton.jit
def walk(
    alignment_ptr,  # (T,) int64, the sample's
    text_end, seed, epoch, sample_key, token_room, rooms, GUIDED: tl.constexpr, TASKS: tl.constexpr, BLOCK_T: tl.constexpr,
):
    """Step 1 of SPEC 6: each pair in turn takes its token or its patch, passing over the other.

    Args:
        text_end: tokens from 1 to before it may be masked.
        token_room: () int32, the budget of tokens.
        rooms: () int32, the slots that each task may take, a number in its own bits, `room`.
        GUIDED: the set of positions of whatever counts as aligned.
        TASKS: plan_triton.Task each; the levels of those that take slots are `cells`.
    Returns:
        token_state (BLOCK_T,) int32; sets of taken and of passed positions; the rooms that are left.
    """
    token = tl.arange(0, BLOCK_T // ROWS)[:, None] * ROWS + tl.arange(0, ROWS)[None, :]
    may_mask = (token >= 1) & (token < text_end)
    usable = _with_room(token_room, rooms, TASKS) & GUIDED
    alignment = tl.load(alignment_ptr + token, mask=may_mask, other=0) & usable
    bound = tl.where(alignment != 0, _key(token * POSITIONS, 0, BLOCK_T) + (_ALL_ONES + _NOT_DRAWN), _GONE)
    token_state = tl.full((BLOCK_T // ROWS, ROWS), OPEN, tl.int32)
    taken, passed = usable & 0, usable & 0
    first = tl.max(bound, axis=None)
    while first != _GONE:
        pair = ((first & (_NOT_DRAWN - 1)) >> 1).to(tl.int32) ^ (BLOCK_T * POSITIONS - 1)
        its_token, position = pair // POSITIONS, pair % POSITIONS
        if ((first & _NOT_DRAWN) == 0) & holds(usable, position):
            room = rooms & 0
            for at in tl.static_range(len(TASKS)):
                if TASKS[at].num_slots > 0:
                    room = tl.where(holds(TASKS[at].cells, position), TASKS[at].room, room)
            patch_fits = (rooms & room) != 0
            takes_token = tl.where((first & 1) != 0, token_room > 0, patch_fits == 0)
            takes_patch = takes_token == 0
            token_room -= takes_token.to(tl.int32)
            rooms -= tl.where(takes_patch, room & -room, 0)
            bit = tl.full((), 1, tl.int64) << position.to(tl.int64)
            taken = taken | tl.where(takes_patch, bit, 0)
            passed = passed | tl.where(takes_patch, 0, bit)
            token_state = tl.where(token == its_token, tl.where(takes_token, TAKEN, PASSED), token_state)
            bound = tl.where(token == its_token, _GONE, bound)
            # A side without room gets none later, so positions leave for good.
            usable = usable & _with_room(token_room, rooms, TASKS) & ~bit
        else:
            row = its_token // ROWS
            drawn = _best_keys(alignment_ptr + row * ROWS, row, text_end, usable, seed, epoch, sample_key, BLOCK_T)
            bound = tl.where((token // ROWS == row) & (bound != _GONE), drawn[None, :], bound)
        first = tl.max(bound, axis=None)
    return tl.reshape(token_state, (BLOCK_T,)), taken, passed, token_room, rooms


@triton.jit
def _key(pair, side, BLOCK_T: tl.constexpr):
    """A pair's int64 key but for its priority; the number of pairs is a power of two."""
    return ((pair ^ (BLOCK_T * POSITIONS - 1)) * 2 + side).to(tl.int64)


@triton.jit
def _with_room(token_room, rooms, TASKS: tl.constexpr):
    """The set of positions whose pairs have room on one side."""
    none = tl.full((), 0, tl.int64)
    usable = none
    for at in tl.static_range(len(TASKS)):
        if TASKS[at].num_slots > 0:
            usable = usable | tl.where((rooms & TASKS[at].room) != 0, none + TASKS[at].cells, none)
    return tl.where(token_room > 0, none - 1, usable)


@triton.jit
def _best_keys(alignment_ptr, row, text_end, usable, seed, epoch, sample_key, BLOCK_T: tl.constexpr):
    """(ROWS,) int64: the best key of each of the tokens from row * ROWS on; _GONE where none is usable."""
    place = tl.arange(0, ROWS)
    token, position = row * ROWS + place, tl.arange(0, POSITIONS)[:, None]
    alignment = tl.load(alignment_ptr + place, mask=token < text_end, other=0) & usable
    pair = token[None, :] * POSITIONS + position
    priority, side, _, _ = draw(seed, epoch, sample_key, _PAIR, pair)
    keys = (priority.to(tl.int64) << 31) + _key(pair, (side >> 31).to(tl.int32), BLOCK_T)
    return tl.max(tl.where(holds(alignment[None, :], position), keys, _GONE), axis=0)


@triton.jit
def fill(state, allowed, priority, room, BLOCK: tl.constexpr):
    """Step 2 of SPEC 6: (BLOCK,) bool, what of `allowed` the walk took and what is taken here, OPEN before PASSED.

    Args:
        state: (BLOCK,) int32, BLOCK at most 512. allowed: (BLOCK,) bool.
        priority: (BLOCK,) uint32.
        room: () int32, how many may still be taken.
    """
    taken = allowed & (state == TAKEN)
    order = (state.to(tl.int64) << 41) + ((priority ^ 0xFFFFFFFF).to(tl.int64) << 9) + tl.arange(0, BLOCK)
    order = tl.where(allowed & (state != TAKEN), order, _LAST)
    first = tl.min(order, axis=0)
    while (room > 0) & (first != _LAST):
        taken = taken | (order == first)
        order = tl.where(order == first, _LAST, order)
        room -= 1
        first = tl.min(order, axis=0)
    return taken
