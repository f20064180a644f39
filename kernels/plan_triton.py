"""plan in Triton: `plan_reference`, bit for bit, one program a sample.

Of the other members of its group a program reads product and presence alone; donors' rows follow from those, so
nothing passes between programs.

Computed for an H100 from the machine code, not measured: a round of an arg-max waits some 300 cycles, a draw for four
tokens issues 430 instructions; a sample of 64 tokens that all have pairs is about 36,000 cycles, 21 us, a usual one
half of that, and 1,024 samples are eight warps on each of 132 SMs, all at once.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from kaleido_fast.kernels import philox, plan_rules
from kaleido_fast.kernels.geometry import level_offsets, offset_of_grid
from kaleido_fast.kernels.masking import GUIDED_FROM
from kaleido_fast.kernels.masking_triton import OPEN, PASSED, POSITIONS, TAKEN, fill, holds, walk
from kaleido_fast.kernels.philox_triton import below, draw
from kaleido_fast.kernels.plan_outputs import Plan, output_shapes
from kaleido_fast.kernels.plan_rules import CAMOUFLAGE_GRID, GREY_GRID, JIGSAW_GRID, MAX_TOKENS, PERMUTATIONS, PlanRules

NUM_WARPS = 1  # one arg-max follows the other: a warp of its own meets no barrier, and 1,024 samples fill a GPU

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
    NUM_POSITIONS: tl.constexpr, NUM_TURNS: tl.constexpr, NUM_PERMUTATIONS: tl.constexpr, MAX_MASKED: tl.constexpr,
    NUM_CAMOUFLAGE: tl.constexpr, NUM_GREY: tl.constexpr, NUM_BLANK: tl.constexpr,
    JIGSAW_AT: tl.constexpr, CAMOUFLAGE_AT: tl.constexpr, GREY_AT: tl.constexpr, BLANK_AT: tl.constexpr,
    GUIDED: tl.constexpr, CAMOUFLAGE: tl.constexpr, GREY: tl.constexpr, BLANK: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_M: tl.constexpr,
):
    sample = tl.program_id(0).to(tl.int64)
    seed, epoch, key = tl.load(seed_ptr), tl.load(epochs_ptr + sample), tl.load(keys_ptr + sample)
    present = tl.load(present_ptr + sample).to(tl.int32)
    token, position = tl.arange(0, BLOCK_T), tl.arange(0, POSITIONS)
    row = sample * num_tokens
    text_end = tl.minimum(tl.load(lengths_ptr + sample) - 1, num_tokens) * present
    num_maskable = tl.maximum(text_end - 1, 0)
    token_room = tl.minimum(tl.maximum((3 * num_maskable + 10) // 20, 1), MAX_MASKED)
    token_room = tl.where(num_maskable > 0, token_room, 0)
    token_state, patches_taken, patches_passed, token_room, camouflage_room, grey_room, blank_room = walk(
        alignment_ptr + row, text_end, seed, epoch, key, token_room, present * NUM_CAMOUFLAGE, present * NUM_GREY,
        present * NUM_BLANK, GUIDED, CAMOUFLAGE, GREY, BLANK, BLOCK_T,
    )

    priority, action, ordinary, _ = draw(seed, epoch, key, _TOKEN, token)
    masked = fill(token_state, (token >= 1) & (token < text_end), priority, token_room, BLOCK_T)
    tokens = tl.load(tokens_ptr + row + token, mask=token < num_tokens, other=0)
    ids = _masked_ids(tokens, action, ordinary, mask_id, ordinary_first, num_ordinary)
    tl.store(masked_tokens_ptr + row + token, tl.where(masked, ids, tokens), mask=token < num_tokens)
    _store_masked(masked_positions_ptr, masked_labels_ptr, num_masked_ptr, sample, tokens, masked, MAX_MASKED,
                  BLOCK_T, BLOCK_M)

    priority, _, _, _ = draw(seed, epoch, key, _PATCH, position)
    state = tl.where(holds(patches_passed, position), PASSED, OPEN)
    state = tl.where(holds(patches_taken, position), TAKEN, state)
    is_camouflaged = fill(state, holds(CAMOUFLAGE, position), priority, camouflage_room, POSITIONS)
    is_grey = fill(state, holds(GREY, position), priority, grey_room, POSITIONS)
    is_blank = fill(state, holds(BLANK, position), priority, blank_room, POSITIONS)

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
    slot = tl.max(tl.where(is_camouflaged, position - CAMOUFLAGE_AT, _NONE), axis=0)
    donor = tl.where(slot != _NONE, _donor(products_ptr, present_ptr, sample, below(start, _GROUP)), _NONE)
    donor_slot = tl.where(donor != _NONE, below(donor_slot, _CAMOUFLAGE_CELLS), _NONE)
    tl.store(camouflage_slot_ptr + sample, slot)
    tl.store(camouflage_label_ptr + sample, tl.where(donor != _NONE, slot, _IGNORED))
    tl.store(donor_ptr + sample, donor)
    tl.store(donor_slot_ptr + sample, donor_slot)
    shown = tl.where(is_camouflaged & (donor != _NONE), donor * NUM_ROWS + CAMOUFLAGE_AT + donor_slot, shown)

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
            f"plan: tokens {tuple(tokens.shape)} must have T at most {MAX_TOKENS} on a CUDA device; cut the texts"
            " to that"
        )
    shapes = output_shapes(batch, width, rules.grids, rules.num_grey, rules.num_blank, rules.max_masked_tokens)
    outputs = Plan(*(tokens.new_empty(shape, dtype=torch.int32) for shape in shapes))
    inputs = (tokens, lengths, alignment, keys, image_products, present.view(torch.uint8), seed, epochs)
    if batch:
        with torch.cuda.device_of(tokens):
            plan_kernel[(batch,)](
                *(x.contiguous() for x in inputs), *outputs, width, rules.mask_id, rules.ordinary_first,
                rules.ordinary_last - rules.ordinary_first + 1, **launch_constants(width, rules), num_warps=NUM_WARPS,
            )
    return outputs


def launch_constants(width: int, rules: PlanRules) -> dict[str, int]:
    """The kernel's constexpr arguments: *_AT is a level's first position, the levels' names are sets of positions."""
    on = {JIGSAW_GRID: rules.jigsaw, CAMOUFLAGE_GRID: rules.camouflage, GREY_GRID: rules.num_grey,
          rules.blank_grid: rules.num_blank}
    # A level that is off lies behind the last position and is empty.
    at = {grid: offset_of_grid(rules.grids, grid) if is_on else POSITIONS.value for grid, is_on in on.items()}
    cells = {grid: (1 << grid * grid) - 1 << at[grid] if is_on else 0 for grid, is_on in on.items()}
    guided = (
        (1 << grid * grid) - 1 << offset for grid, offset in zip(rules.grids, level_offsets(rules.grids))
        if rules.guided and grid >= GUIDED_FROM
    )
    return {
        "NUM_POSITIONS": rules.num_positions, "NUM_TURNS": 4 if rules.rotation else 1,
        "NUM_PERMUTATIONS": len(PERMUTATIONS) if rules.jigsaw else 1, "MAX_MASKED": rules.max_masked_tokens,
        "NUM_CAMOUFLAGE": int(rules.camouflage), "NUM_GREY": rules.num_grey, "NUM_BLANK": rules.num_blank,
        "JIGSAW_AT": at[JIGSAW_GRID], "CAMOUFLAGE_AT": at[CAMOUFLAGE_GRID], "GREY_AT": at[GREY_GRID],
        "BLANK_AT": at[rules.blank_grid], "GUIDED": _signed(sum(guided)),
        "CAMOUFLAGE": _signed(cells[CAMOUFLAGE_GRID]), "GREY": _signed(cells[GREY_GRID]),
        "BLANK": _signed(cells[rules.blank_grid]), "BLOCK_T": max(16, triton.next_power_of_2(width)),
        "BLOCK_M": triton.next_power_of_2(max(1, rules.max_masked_tokens)),
    }
