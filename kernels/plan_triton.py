"""plan in Triton: `plan_reference`, bit for bit, one program a sample.

Of the other members of its group a program reads product and presence alone; donors' rows follow from those, so
nothing passes between programs.

Computed for an H100 from the machine code, not measured: a round of an arg-max waits some 300 cycles, a draw for four
tokens issues 430 instructions; a sample of 64 tokens that all have pairs is about 36,000 cycles, 21 us, a usual one
half of that, and 1,024 samples are eight warps on each of 132 SMs, all at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

import torch
import triton
import triton.language as tl
from torch import Tensor

from kaleido_fast.kernels import philox, plan_rules
from kaleido_fast.kernels.geometry import level_offsets, offset_of_grid
from kaleido_fast.kernels.masking import GUIDED_FROM
from kaleido_fast.kernels.masking_triton import OPEN, PASSED, POSITIONS, TAKEN, fill, holds, walk
from kaleido_fast.kernels.memory import loadable
from kaleido_fast.kernels.philox_triton import below, draw
from kaleido_fast.kernels.plan_outputs import Plan, PlanInputs, output_shapes
from kaleido_fast.kernels.plan_rules import MAX_TOKENS, PlanRules
from kaleido_fast.kernels.tasks import EFFECTS, PERMUTATIONS, PERMUTED_GRID, first_slots

NUM_WARPS = 1  # one arg-max follows the other: a warp of its own meets no barrier, and 1,024 samples fill a GPU

_NONE, _IGNORED = tl.constexpr(plan_rules.NONE), tl.constexpr(plan_rules.IGNORED)
_GROUP = tl.constexpr(plan_rules.GROUP)
_TOKEN, _PATCH, _SAMPLE = (tl.constexpr(x) for x in (philox.TOKEN, philox.PATCH, philox.SAMPLE))
_TURN, _PERMUTE, _SWAP, _GREY, _BLANK = (tl.constexpr(EFFECTS.index(x)) for x in ("turn", "permute", "swap", "grey", "blank"))
_PERMUTED = tl.constexpr(PERMUTED_GRID**2)


@dataclass(frozen=True)
class Task:
    """One task's constants in the kernel; a column is one of the outputs'."""

    effect: int
    num_classes: int
    draws: bool  # it needs words that are not those drawn last
    draw: int
    num_slots: int
    first_position: int
    cells: int  # the set of its level's positions, int64; empty where it takes no slots
    room: int  # the bits, from `shift` on, in which the walk's rooms count its slots; 0 where it takes none
    shift: int
    first_slot: int  # column
    swap: int  # column
    first_row: int  # of its greyed patches, behind a sample's first row


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
    epochs_ptr,  # (B,) int64
    seed_ptr,  # () int64
    labels_ptr,  # (B, tasks)
    slots_ptr,  # (B, NUM_SLOTS)
    donors_ptr, donor_slots_ptr,  # (B, NUM_SWAPS)
    source_ptr,  # (B, K)
    masked_tokens_ptr,  # (B, T)
    masked_positions_ptr, masked_labels_ptr,  # (B, M)
    num_masked_ptr,  # (B,)
    num_tokens, mask_id, ordinary_first, num_ordinary,
    NUM_POSITIONS: tl.constexpr, NUM_ROWS: tl.constexpr, NUM_SLOTS: tl.constexpr, NUM_SWAPS: tl.constexpr,
    MAX_MASKED: tl.constexpr, ROOMS: tl.constexpr, GUIDED: tl.constexpr, TASKS: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_L: tl.constexpr,
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
    token_state, patches_taken, patches_passed, token_room, rooms = walk(
        alignment_ptr + row, text_end, seed, epoch, key, token_room, present * ROOMS, GUIDED, TASKS, BLOCK_T
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
    all_taken = state < OPEN  # nothing; levels do not overlap, so one set holds the slots of all tasks
    for at in tl.static_range(len(TASKS)):
        if TASKS[at].num_slots > 0:
            room = (rooms & TASKS[at].room) >> TASKS[at].shift
            all_taken = all_taken | fill(state, holds(TASKS[at].cells, position), priority, room, POSITIONS)

    first_row = sample * NUM_ROWS
    shown = first_row + position
    column = tl.arange(0, BLOCK_L)
    labels = tl.full((BLOCK_L,), _IGNORED, tl.int32)
    for at in tl.static_range(len(TASKS)):
        slot = position - TASKS[at].first_position
        if TASKS[at].draws:
            words = draw(seed, epoch, key, _SAMPLE, tl.program_id(0) * 0 + TASKS[at].draw)
        if TASKS[at].num_slots > 0:
            taken = all_taken & holds(TASKS[at].cells, position)
            its_slots_ptr = slots_ptr + sample * NUM_SLOTS + TASKS[at].first_slot
            nth = _store_slots(its_slots_ptr, taken, slot, TASKS[at].num_slots)
        if TASKS[at].effect == _TURN:
            turns = below(words[0], TASKS[at].num_classes) * present
            labels = tl.where(column == at, turns, labels)
        if TASKS[at].effect == _PERMUTE:
            permutation = below(words[1], TASKS[at].num_classes) * present
            labels = tl.where(column == at, permutation, labels)
            its_row = first_row + TASKS[at].first_position + _shown_patch(permutation, slot)
            shown = tl.where((slot >= 0) & (slot < _PERMUTED), its_row, shown)
        if TASKS[at].effect == _SWAP:
            its_slot = _only(taken, slot)
            donor = tl.where(its_slot != _NONE, _donor(products_ptr, present_ptr, sample, below(words[2], _GROUP)), _NONE)
            donor_slot = tl.where(donor != _NONE, below(words[3], TASKS[at].num_classes), _NONE)
            tl.store(donors_ptr + sample * NUM_SWAPS + TASKS[at].swap, donor)
            tl.store(donor_slots_ptr + sample * NUM_SWAPS + TASKS[at].swap, donor_slot)
            labels = tl.where((column == at) & (donor != _NONE), its_slot, labels)
            its_row = donor * NUM_ROWS + TASKS[at].first_position + donor_slot
            shown = tl.where(taken & (donor != _NONE), its_row, shown)
        if TASKS[at].effect == _GREY:
            shown = tl.where(taken, first_row + TASKS[at].first_row + nth, shown)
        if TASKS[at].effect == _BLANK:
            shown = tl.where(taken, _NONE, shown)
    tl.store(labels_ptr + sample * len(TASKS) + column, labels, mask=column < len(TASKS))
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
def _store_slots(slots_ptr, taken, slot, COUNT: tl.constexpr):
    """The taken slots of a level, ascending; NONE where nothing is taken, for a level gives all or nothing.

    Args:
        slots_ptr: (COUNT,), the sample's for this task.
    Returns:
        (64,) int32: of a slot that is taken, how many stand before it.
    """
    if COUNT == 1:
        nth = slot * 0
        tl.store(slots_ptr, _only(taken, slot))
    else:
        nth = tl.cumsum(taken.to(tl.int32), axis=0) - 1
        tl.store(slots_ptr + nth, slot, mask=taken)
        place = tl.arange(0, POSITIONS)
        is_free = (place >= tl.sum(taken.to(tl.int32), axis=0)) & (place < COUNT)
        tl.store(slots_ptr + place, tl.full((POSITIONS,), _NONE, tl.int32), mask=is_free)
    return nth


@triton.jit
def _only(taken, slot):
    """() int32: the slot of a level that takes one, NONE where it takes none."""
    return tl.max(tl.where(taken, slot, _NONE), axis=0)


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


def plan_triton(inputs: PlanInputs, seed: Tensor, rules: PlanRules) -> Plan:
    """`plan` by one kernel, arguments as there; what no kernel can load (memory.py) is copied first.

    Raises:
        ValueError: T is above 512.
    """
    tokens = inputs.tokens
    batch, width = tokens.shape
    if width > MAX_TOKENS:
        raise ValueError(
            f"plan: tokens {tuple(tokens.shape)} must have T at most {MAX_TOKENS} on a CUDA device; cut the texts"
            " to that"
        )
    shapes = output_shapes(batch, width, rules)
    drawn = Plan(*(tokens.new_empty(shape, dtype=torch.int32) for shape in shapes), rules.tasks)
    if batch:
        with torch.cuda.device_of(tokens):
            plan_kernel[(batch,)](
                *map(loadable, inputs._replace(present=inputs.present.view(torch.uint8))), loadable(seed), *drawn.tensors,
                width, rules.mask_id, rules.ordinary_first, rules.ordinary_last - rules.ordinary_first + 1,
                **launch_constants(width, rules), num_warps=NUM_WARPS,
            )
    return drawn


@lru_cache(maxsize=64)
def launch_constants(width: int, rules: PlanRules) -> Mapping[str, object]:
    """The kernel's constexpr arguments; sets of positions are int64, a bit each. Kept: a launch has some ten microseconds."""
    tasks, guided = _tasks(rules), (
        (1 << grid * grid) - 1 << offset for grid, offset in zip(rules.grids, level_offsets(rules.grids), strict=True)
        if rules.guided and grid >= GUIDED_FROM
    )
    return MappingProxyType({
        "NUM_POSITIONS": rules.num_positions, "NUM_ROWS": rules.num_rows,
        "NUM_SLOTS": sum(task.num_slots for task in tasks), "NUM_SWAPS": sum(task.effect == _SWAP.value for task in tasks),
        "MAX_MASKED": rules.max_masked_tokens, "ROOMS": sum(task.num_slots << task.shift for task in tasks),
        "GUIDED": _signed(sum(guided)), "TASKS": tasks, "BLOCK_T": max(16, triton.next_power_of_2(width)),
        "BLOCK_M": triton.next_power_of_2(max(1, rules.max_masked_tokens)),
        "BLOCK_L": triton.next_power_of_2(max(1, len(tasks))),
    })


def _tasks(rules: PlanRules) -> tuple[Task, ...]:
    """Each task with its places; levels of 64 positions in all have rooms of 18 bits at the most."""
    tasks, swaps, first_row, last_draw, shift = [], 0, rules.num_positions, None, 0
    for task, first_slot in zip(rules.tasks, first_slots(rules.tasks), strict=True):
        first = offset_of_grid(rules.grids, task.grid)
        cells, bits = (1 << task.grid**2) - 1 << first, task.num_slots.bit_length()
        tasks.append(Task(
            effect=EFFECTS.index(task.effect), num_classes=task.num_classes, num_slots=task.num_slots,
            draws=task.num_classes > 0 and task.draw != last_draw, draw=task.draw, first_position=first,
            cells=_signed(cells) if task.num_slots else 0,
            room=(1 << bits) - 1 << shift, shift=shift, first_slot=first_slot, swap=swaps, first_row=first_row,
        ))
        shift += bits
        last_draw = task.draw if task.num_classes else last_draw
        swaps += task.effect == "swap"
        first_row += task.num_greyed
    return tuple(tasks)
