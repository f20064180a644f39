"""Alignment-guided masking, AGM: which tokens and patches are masked (SPEC 6, steps 1 and 2).

Every token and every position of a sample is in one of three states: OPEN, PASSED over (left visible, for
it is the evidence for its masked partner) or TAKEN. The walk goes through the aligned pairs, the fill uses up
what is left of the budgets. All integers, so every implementation agrees bit for bit.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from kaleido_fast.kernels.geometry import level_offsets, position_levels
from kaleido_fast.kernels.philox import PAIR, draw
from kaleido_fast.kernels.plan_rules import ALIGNMENT_BITS

OPEN, PASSED, TAKEN = 0, 1, 2
GUIDED_FROM = 3  # aligned patches of coarser grids count for nothing

_TOP_WORD = 2**32 - 1


class Budgets(NamedTuple):
    """How many to mask; 0 in a hole."""

    tokens: Tensor  # (B,) int64
    patches: Tensor  # (B, L) int64, a column for each grid


class States(NamedTuple):
    """OPEN, PASSED or TAKEN."""

    tokens: Tensor  # (B, T) int64
    patches: Tensor  # (B, K) int64


class Pairs(NamedTuple):
    """The aligned (token, patch) pairs of each sample in walking order, padded to the longest list."""

    exists: Tensor  # (B, Q) bool
    token: Tensor  # (B, Q) int64
    position: Tensor  # (B, Q) int64
    token_side: Tensor  # (B, Q) bool, the drawn bit


def untouched(num_samples: int, num_tokens: int, num_positions: int, device: torch.device) -> States:
    """Everything OPEN."""
    shapes = ((num_samples, num_tokens), (num_samples, num_positions))
    return States(*(torch.full(shape, OPEN, dtype=torch.int64, device=device) for shape in shapes))


def walk(pairs: Pairs, budgets: Budgets, start: States, grids: tuple[int, ...]) -> States:
    """Step 1: walk the pairs by falling priority; each takes its token or its patch, passing over the other.

    A round walks the first pair of every sample whose token and patch are open and which finds room. It takes
    one of the two, so there are at most as many rounds as the budgets' sum.
    """
    room, states = Budgets(*(x.clone() for x in budgets)), States(*(x.clone() for x in start))
    level = position_levels(grids).to(pairs.position.device)[pairs.position]
    left = pairs.exists
    while left.numel():
        has_room = (room.tokens[:, None] > 0) | (room.patches > 0).gather(1, level)
        has_pair, first = (left & has_room).to(torch.uint8).max(dim=1)
        row = has_pair.nonzero()[:, 0]
        if not len(row):
            break
        token, position = (x.gather(1, first[:, None]) for x in (pairs.token, pairs.position))
        left = left & (pairs.token != token) & (pairs.position != position)
        _honour(pairs, row, first[row], level, room, states)
    return states


def fill(state: Tensor, allowed: Tensor, priority: Tensor, budget: Tensor) -> Tensor:
    """Step 2: take by falling priority, ties by lower index, until the budget is full; OPEN before PASSED.

    Args:
        state: (B, n) int64.
        allowed: (B, n) bool, what may be taken.
        priority: (B, n) int64, words.
        budget: (B,) int64, what the walk took included.
    Returns:
        (B, n) bool: taken by the walk or here.
    """
    taken = state == TAKEN
    # What is TAKEN or not allowed sorts last.
    key = torch.where(allowed, (state << 32) + (_TOP_WORD - priority), TAKEN << 32)
    rank = key.argsort(dim=1, stable=True).argsort(dim=1)
    return taken | (allowed & (rank < (budget - taken.sum(dim=1))[:, None]))


def aligned_pairs(
    alignment: Tensor, seed: Tensor, epochs: Tensor, keys: Tensor, grids: tuple[int, ...]
) -> Pairs:
    """The pairs on grids of 3 and more by falling priority, ties by lower token, then lower position.

    Words are drawn where the alignment has bits and nowhere else: alignments are sparse.

    Args:
        alignment: (B, T) int64, 0 where a token may not be masked.
        seed: () int64. epochs, keys: (B,) int64.
    """
    row, token, position = _set_bits(alignment, grids)
    priority, side, _, _ = draw(seed, epochs[row], keys[row], PAIR, token * ALIGNMENT_BITS + position)
    # The pairs stand in (row, token, position) order: a stable sort settles ties as wanted.
    order = ((row << 32) + (_TOP_WORD - priority)).argsort(stable=True)
    row, token, position, token_side = row[order], token[order], position[order], side[order] >= 2**31
    count = row.bincount(minlength=len(alignment))
    place = torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[row]
    size = (len(alignment), int(count.max()) if len(row) else 0)
    exists, padded_side = (torch.zeros(size, dtype=torch.bool, device=row.device) for _ in range(2))
    padded_token, padded_position = row.new_zeros(size), row.new_zeros(size)
    exists[row, place], padded_side[row, place] = True, token_side
    padded_token[row, place], padded_position[row, place] = token, position
    return Pairs(exists, padded_token, padded_position, padded_side)


def _set_bits(alignment: Tensor, grids: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Row, token and position, (n,) int64 each, of every set bit on the guided grids, in this order."""
    levels = zip(grids, level_offsets(grids), strict=True)
    guided = [offset + slot for n, offset in levels if n >= GUIDED_FROM for slot in range(n * n)]
    positions = torch.tensor(guided, dtype=torch.int64, device=alignment.device).sort().values
    row, token = alignment.nonzero(as_tuple=True)
    mask, column = ((alignment[row, token][:, None] >> positions) & 1).nonzero(as_tuple=True)
    return row[mask], token[mask], positions[column]


def _honour(pairs: Pairs, row: Tensor, first: Tensor, level: Tensor, room: Budgets, states: States) -> None:
    """Walk pair `first` of each sample `row`: take its drawn side, the other where that has no room."""
    token, position, level = pairs.token[row, first], pairs.position[row, first], level[row, first]
    token_fits, patch_fits = room.tokens[row] > 0, room.patches[row, level] > 0
    takes_token = torch.where(pairs.token_side[row, first], token_fits, ~patch_fits)
    room.tokens[row] -= takes_token.long()
    room.patches[row, level] -= (~takes_token).long()
    states.tokens[row, token] = torch.where(takes_token, TAKEN, PASSED)
    states.patches[row, position] = torch.where(takes_token, PASSED, TAKEN)
