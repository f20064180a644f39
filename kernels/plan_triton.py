"""plan in Triton: `plan_reference`, bit for bit, one program a sample.

A program holds its sample's (T, 64) pairs in registers; of the other members of its group it reads product and
presence alone. Nothing is kept between programs.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from kaleido_fast.kernels import philox, plan_rules
from kaleido_fast.kernels.geometry import level_offsets, offset_of_grid
from kaleido_fast.kernels.masking import GUIDED_FROM
from kaleido_fast.kernels.masking_triton import POSITIONS, fill, level_of, pair_keys, room_of, walk
from kaleido_fast.kernels.philox_triton import below, draw
from kaleido_fast.kernels.plan_outputs import Plan, output_shapes
from kaleido_fast.kernels.plan_rules import CAMOUFLAGE_GRID, GREY_GRID, JIGSAW_GRID, PERMUTATIONS, PlanRules

MAX_TOKENS = 512  # 64 pairs a thread with the warps of `num_warps`

_NONE, _IGNORED = tl.constexpr(plan_rules.NONE), tl.constexpr(plan_rules.IGNORED)
_GROUP = tl.constexpr(plan_rules.GROUP)
_TOKEN, _PATCH, _SAMPLE = (tl.constexpr(x) for x in (philox.TOKEN, philox.PATCH, philox.SAMPLE))
_CAMOUFLAGE_CELLS, _JIGSAW_CELLS = tl.constexpr(CAMOUFLAGE_GRID**2), tl.constexpr(JIGSAW_GRID**2)


def _signed(word: int) -> int:
    """The int64 that holds a word's 64 bits."""
    return word - (word >> 63 << 64)


def _packed(permutations: Sequence[tuple[int, ...]]) -> int:
    """Eight permutations in a word: eight bits each, two for each slot."""
    patches = (patch << (8 * i + 2 * slot) for i, shown in enumerate(permutations) for slot, patch in enumerate(shown))
    return _signed(sum(patches))


_SHOWN_0, _SHOWN_8, _SHOWN_16 = (tl.constexpr(_packed(PERMUTATIONS[n : n + 8])) for n in (0, 8, 16))


@triton.jit
def plan_kernel(
    tokens_ptr,  # (B, T) int32
    lengths_ptr,  # (B,) int32
    alignment_ptr,  # (B, T) int64
    keys_ptr, products_ptr,  # (B,) int64
    present_ptr,  # (B,) uint8
    seed_ptr,  # () int64
    epochs_ptr,  # (B,) int64
    rotation_ptr, permutation_ptr, camouflage_slot_ptr, camouflage_label_ptr, donor_ptr, donor_slot_ptr,  # (B,)
    grey_slots_ptr,  # (B, G)
    blank_slots_ptr,  # (B, Z)
    source_ptr,  # (B, K)
    masked_tokens_ptr,  # (B, T)
    masked_positions_ptr, masked_labels_ptr,  # (B, M)
    num_masked_ptr,  # (B,)
    num_tokens, mask_id, ordinary_first, num_ordinary,
    NUM_POSITIONS: tl.constexpr, GUIDED: tl.constexpr, NUM_TURNS: tl.constexpr, NUM_PERMUTATIONS: tl.constexpr,
    JIGSAW_AT: tl.constexpr, CAMOUFLAGE_AT: tl.constexpr, GREY_AT: tl.constexpr, BLANK_AT: tl.constexpr,
    BLANK_CELLS: tl.constexpr, NUM_CAMOUFLAGE: tl.constexpr, NUM_GREY: tl.constexpr, NUM_BLANK: tl.constexpr,
    MAX_MASKED: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_M: tl.constexpr,
):
    sample = tl.program_id(0).to(tl.int64)
    seed, epoch, key = tl.load(seed_ptr), tl.load(epochs_ptr + sample), tl.load(keys_ptr + sample)
    present = tl.load(present_ptr + sample).to(tl.int32)
    token, position = tl.arange(0, BLOCK_T), tl.arange(0, POSITIONS)
    level = level_of(position, CAMOUFLAGE_AT, GREY_AT, BLANK_AT, BLANK_CELLS)

    in_text = token < num_tokens
    row = sample * num_tokens + token
    maskable = in_text & (token >= 1) & (token < tl.load(lengths_ptr + sample) - 1) & (present != 0)
    alignment = tl.load(alignment_ptr + row, mask=maskable, other=0) & GUIDED
    num_maskable = tl.sum(maskable.to(tl.int32), axis=0)
    token_room = tl.minimum(tl.maximum((3 * num_maskable + 10) // 20, 1), MAX_MASKED)
    token_room = tl.where(num_maskable > 0, token_room, 0)
    camouflage_room, grey_room, blank_room = present * NUM_CAMOUFLAGE, present * NUM_GREY, present * NUM_BLANK

    token_state = tl.zeros((BLOCK_T,), tl.int32)
    patch_state = tl.zeros((POSITIONS,), tl.int32)
    if tl.max((alignment != 0).to(tl.int32), axis=0) != 0:
        keys = pair_keys(alignment, seed, epoch, key, BLOCK_T)
        token_state, patch_state, token_room, camouflage_room, grey_room, blank_room = walk(
            keys, level, token_room, camouflage_room, grey_room, blank_room, BLOCK_T
        )

    priority, action, ordinary, _ = draw(seed, epoch, key, _TOKEN, token)
    masked = fill(token_state, maskable, token * 0, priority, token_room, BLOCK_T)
    tokens = tl.load(tokens_ptr + row, mask=in_text, other=0)
    ids = _masked_ids(tokens, action, ordinary, mask_id, ordinary_first, num_ordinary)
    tl.store(masked_tokens_ptr + row, tl.where(masked, ids, tokens), mask=in_text)
    _store_masked(masked_positions_ptr, masked_labels_ptr, num_masked_ptr, sample, tokens, masked, MAX_MASKED,
                  BLOCK_T, BLOCK_M)

    priority, _, _, _ = draw(seed, epoch, key, _PATCH, position)
    room = room_of(level, camouflage_room, grey_room, blank_room)
    taken = fill(patch_state, level > 0, level, priority, room, POSITIONS)
    turn, permutation, start, donor_slot = draw(seed, epoch, key, _SAMPLE, tl.program_id(0) * 0)
    tl.store(rotation_ptr + sample, below(turn, NUM_TURNS) * present)
    permutation = below(permutation, NUM_PERMUTATIONS) * present
    tl.store(permutation_ptr + sample, permutation)

    NUM_ROWS: tl.constexpr = NUM_POSITIONS + NUM_GREY
    first_row = sample * NUM_ROWS
    shown = first_row + position
    slot = position - JIGSAW_AT
    is_moved = (slot >= 0) & (slot < _JIGSAW_CELLS)
    shown = tl.where(is_moved, first_row + JIGSAW_AT + _shown_patch(permutation, slot), shown)
    slot = tl.max(tl.where(taken & (level == 1), position - CAMOUFLAGE_AT, _NONE), axis=0)
    donor = tl.where(slot != _NONE, _donor(products_ptr, present_ptr, sample, below(start, _GROUP)), _NONE)
    donor_slot = tl.where(donor != _NONE, below(donor_slot, _CAMOUFLAGE_CELLS), _NONE)
    tl.store(camouflage_slot_ptr + sample, slot)
    tl.store(camouflage_label_ptr + sample, tl.where(donor != _NONE, slot, _IGNORED))
    tl.store(donor_ptr + sample, donor)
    tl.store(donor_slot_ptr + sample, donor_slot)
    is_camouflaged = (donor != _NONE) & (position == CAMOUFLAGE_AT + slot)
    shown = tl.where(is_camouflaged, donor * NUM_ROWS + CAMOUFLAGE_AT + donor_slot, shown)

    is_grey, is_blank = taken & (level == 2), taken & (level == 3)
    nth_grey = _store_slots(grey_slots_ptr, sample, is_grey, position - GREY_AT, NUM_GREY)
    _store_slots(blank_slots_ptr, sample, is_blank, position - BLANK_AT, NUM_BLANK)
    shown = tl.where(is_grey, first_row + NUM_POSITIONS + nth_grey, tl.where(is_blank, _NONE, shown))
    tl.store(source_ptr + sample * NUM_POSITIONS + position, shown.to(tl.int32), mask=position < NUM_POSITIONS)


@triton.jit
def _masked_ids(tokens, action, ordinary, mask_id, ordinary_first, num_ordinary):
    """Step 3 of SPEC 6: of ten masked tokens eight become [MASK], one a random ordinary id, one stays."""
    action = below(action, 10)
    ids = tl.where(action == 8, ordinary_first + below(ordinary, num_ordinary), tokens)
    return tl.where(action < 8, mask_id, ids)


@triton.jit
def _store_masked(positions_ptr, labels_ptr, num_masked_ptr, sample, tokens, masked, MAX_MASKED: tl.constexpr,
                  BLOCK_T: tl.constexpr, BLOCK_M: tl.constexpr):
    """Positions and labels of what is masked, ascending, then NONE and IGNORED."""
    num_masked = tl.sum(masked.to(tl.int32), axis=0)
    tl.store(num_masked_ptr + sample, num_masked)
    nth = sample * MAX_MASKED + tl.cumsum(masked.to(tl.int32), axis=0) - 1
    tl.store(positions_ptr + nth, tl.arange(0, BLOCK_T), mask=masked)
    tl.store(labels_ptr + nth, tokens, mask=masked)
    place = tl.arange(0, BLOCK_M)
    is_free = (place >= num_masked) & (place < MAX_MASKED)
    tl.store(positions_ptr + sample * MAX_MASKED + place, tl.full((BLOCK_M,), _NONE, tl.int32), mask=is_free)
    tl.store(labels_ptr + sample * MAX_MASKED + place, tl.full((BLOCK_M,), _IGNORED, tl.int32), mask=is_free)


@triton.jit
def _store_slots(slots_ptr, sample, taken, slot, COUNT: tl.constexpr):
    """The taken slots of a level, ascending; NONE where nothing is taken, for a level gives all or nothing.

    Returns:
        (64,) int32: how many of them stand before each position, itself included, less one.
    """
    nth = tl.cumsum(taken.to(tl.int32), axis=0) - 1
    tl.store(slots_ptr + sample * COUNT + nth, slot, mask=taken)
    place = tl.arange(0, POSITIONS)
    is_free = (place >= tl.sum(taken.to(tl.int32), axis=0)) & (place < COUNT)
    tl.store(slots_ptr + sample * COUNT + place, tl.full((POSITIONS,), _NONE, tl.int32), mask=is_free)
    return nth


@triton.jit
def _shown_patch(permutation, slot):
    """(64,) int32: the patch that each slot of level 2 shows; slots from 0 to 3 count."""
    word = tl.where(permutation < 8, _SHOWN_0, tl.where(permutation < 16, _SHOWN_8, _SHOWN_16))
    shift = (permutation % 8) * 8 + (slot & 3) * 2
    return ((word >> shift) & 3).to(tl.int32)


@triton.jit
def _donor(products_ptr, present_ptr, sample, start):
    """() int32: the first member of the group from `start` on, cyclically, that shows another product."""
    step = tl.arange(0, _GROUP)
    member = sample // _GROUP * _GROUP + (start + step) % _GROUP
    is_there = tl.load(present_ptr + member) != 0
    fits = is_there & (tl.load(products_ptr + member) != tl.load(products_ptr + sample))
    first = tl.min(tl.where(fits, step, _GROUP), axis=0)
    donor = sample // _GROUP * _GROUP + (start + first) % _GROUP
    return tl.where(first < _GROUP, donor, _NONE).to(tl.int32)


def plan_triton(
    tokens: Tensor, lengths: Tensor, alignment: Tensor, keys: Tensor, image_products: Tensor, present: Tensor,
    seed: Tensor, epochs: Tensor, rules: PlanRules,
) -> Plan:
    """`plan` by one kernel, arguments as there; what is not contiguous is copied first.

    Raises:
        ValueError: T is above 512.
    """
    batch, width = tokens.shape
    if width > MAX_TOKENS:
        raise ValueError(
            f"plan: tokens {tuple(tokens.shape)} must have T at most {MAX_TOKENS} on a CUDA device; set"
            " data.max_tokens lower"
        )
    shapes = output_shapes(
        batch, width, rules.grids, rules.num_grey, rules.num_blank, rules.max_masked_tokens
    )
    outputs = Plan(*(tokens.new_empty(shape, dtype=torch.int32) for shape in shapes))
    inputs = (tokens, lengths, alignment, keys, image_products, present.view(torch.uint8), seed, epochs)
    if batch:
        constants = launch_constants(width, rules)
        plan_kernel[(batch,)](
            *(x.contiguous() for x in inputs), *outputs, width, rules.mask_id, rules.ordinary_first,
            rules.ordinary_last - rules.ordinary_first + 1, **constants, num_warps=num_warps(constants["BLOCK_T"]),
        )
    return outputs


def launch_constants(width: int, rules: PlanRules) -> dict[str, int]:
    """The kernel's constexpr arguments. A level that is off lies behind the last position."""
    def at(grid: int, count: int) -> int:
        return offset_of_grid(rules.grids, grid) if count else POSITIONS.value

    guided = sum(
        1 << (offset + slot) for n, offset in zip(rules.grids, level_offsets(rules.grids))
        if rules.guided and n >= GUIDED_FROM for slot in range(n * n)
    )
    return {
        "NUM_POSITIONS": rules.num_positions, "GUIDED": _signed(guided),
        "NUM_TURNS": 4 if rules.rotation else 1, "NUM_PERMUTATIONS": len(PERMUTATIONS) if rules.jigsaw else 1,
        "JIGSAW_AT": at(JIGSAW_GRID, rules.jigsaw), "CAMOUFLAGE_AT": at(CAMOUFLAGE_GRID, rules.camouflage),
        "GREY_AT": at(GREY_GRID, rules.num_grey), "BLANK_AT": at(rules.blank_grid, rules.num_blank),
        "BLANK_CELLS": rules.blank_grid**2, "NUM_CAMOUFLAGE": int(rules.camouflage), "NUM_GREY": rules.num_grey,
        "NUM_BLANK": rules.num_blank, "MAX_MASKED": rules.max_masked_tokens,
        "BLOCK_T": max(16, triton.next_power_of_2(width)),
        "BLOCK_M": triton.next_power_of_2(max(1, rules.max_masked_tokens)),
    }


def num_warps(block_tokens: int) -> int:
    """32 pairs a thread, 64 of registers for their keys; above 256 tokens 64 pairs, which 16 warps still hold."""
    return min(16, max(4, block_tokens // 16))
