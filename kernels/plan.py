"""plan: everything random about a batch, known before any pixel is touched (SPEC 2, 3 and 6).

Which way level 1 is turned, how level 2 is permuted, which level-3 slot is camouflaged and by whom, which
slots are greyed and blanked, which tokens are masked, and the encoded row that each input position reads.
Every draw is indexed by seed, epoch, sample key and purpose (philox.py): but for the donor, who comes from the
sample's group, nothing depends on the batch around a sample. All integers, so every implementation equals
tests/golden/plan.npz bit for bit.

Shapes: B samples (whole groups of 16), T tokens, K positions, G greyed slots, Z blanked slots.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from kaleido_fast.kernels.geometry import GRIDS, offset_of_grid
from kaleido_fast.kernels.masking import Budgets, States, aligned_pairs, fill, untouched, walk
from kaleido_fast.kernels.philox import PATCH, SAMPLE, TOKEN, Words, below, draw
from kaleido_fast.kernels.plan_outputs import Plan, output_shapes
from kaleido_fast.kernels.plan_rules import (
    CAMOUFLAGE_GRID, GREY_GRID, GROUP, IGNORED, NONE, PERMUTATIONS, PlanRules, token_budget,
)
from kaleido_fast.kernels.plan_triton import plan_triton
from kaleido_fast.kernels.source import Moves, clean_source, find_donors, moved_source


def plan_reference(
    tokens: Tensor, lengths: Tensor, alignment: Tensor, keys: Tensor, image_products: Tensor, present: Tensor,
    seed: Tensor, epochs: Tensor, rules: PlanRules,
) -> Plan:
    """`plan` in plain PyTorch, arguments as there: the CPU path, and the truth for kernels."""
    place, position = (torch.arange(n, device=tokens.device) for n in (tokens.shape[1], rules.num_positions))
    token_words = draw(seed, epochs[:, None], keys[:, None], TOKEN, place)
    patch_words = draw(seed, epochs[:, None], keys[:, None], PATCH, position)
    sample_words = draw(seed, epochs, keys, SAMPLE, 0)

    maskable = (place >= 1) & (place < lengths[:, None] - 1) & present[:, None]
    num_tokens = token_budget(maskable.sum(dim=1), rules.max_masked_tokens)
    budgets = Budgets(num_tokens, _patch_budgets(present, rules))
    states = _guided_states(torch.where(maskable, alignment, 0), budgets, seed, epochs, keys, rules)
    masked = fill(states.tokens, maskable, token_words[0], budgets.tokens)
    slots = _taken_slots(states.patches, patch_words[0], budgets.patches, rules)

    moves = _moves(slots, sample_words, image_products, present, rules)
    positions = _ascending(masked, rules.max_masked_tokens)
    outputs = Plan(
        rotation=below(sample_words[0], 4) * (present & rules.rotation),
        permutation=moves.permutation,
        camouflage_slot=moves.camouflage_slot,
        camouflage_label=torch.where(moves.donor != NONE, moves.camouflage_slot, IGNORED),
        donor=moves.donor,
        donor_slot=moves.donor_slot,
        grey_slots=moves.grey_slots,
        blank_slots=moves.blank_slots,
        source=moved_source(moves, rules),
        masked_tokens=_masked_ids(tokens, masked, token_words, rules),
        masked_positions=positions,
        masked_labels=torch.where(positions != NONE, tokens.gather(1, positions.clamp(min=0)), IGNORED),
        num_masked=masked.sum(dim=1),
    )
    return Plan(*(x.to(torch.int32, memory_format=torch.contiguous_format) for x in outputs))


def _patch_budgets(present: Tensor, rules: PlanRules) -> Tensor:
    """(B, L) int64: slots to take on each grid, 0 in a hole."""
    budgets = [rules.patch_budgets.get(grid, 0) for grid in rules.grids]
    return present[:, None] * torch.tensor(budgets, dtype=torch.int64, device=present.device)


def _guided_states(
    alignment: Tensor, budgets: Budgets, seed: Tensor, epochs: Tensor, keys: Tensor, rules: PlanRules
) -> States:
    """What step 1 leaves; under random masking nothing is touched."""
    start = untouched(*alignment.shape, rules.num_positions, alignment.device)
    if not rules.guided:
        return start
    return walk(aligned_pairs(alignment, seed, epochs, keys, rules.grids), budgets, start, rules.grids)


def _taken_slots(states: Tensor, priority: Tensor, budgets: Tensor, rules: PlanRules) -> dict[int, Tensor]:
    """For each grid whose task takes slots: (B, count) int64, ascending; NONE in a hole."""
    slots = {}
    for grid, count in rules.patch_budgets.items():
        offset, level = offset_of_grid(rules.grids, grid), rules.grids.index(grid)
        cells = slice(offset, offset + grid * grid)
        state = states[:, cells]
        taken = fill(state, torch.ones_like(state, dtype=torch.bool), priority[:, cells], budgets[:, level])
        slots[grid] = _ascending(taken, count)
    return slots


def _moves(
    slots: dict[int, Tensor], words: Words, image_products: Tensor, present: Tensor, rules: PlanRules
) -> Moves:
    """What happens to levels 2 to 5; `words` are the sample's (stream 3, index 0)."""
    none = image_products.new_full((len(present), 1), NONE)
    camouflage_slot = slots.get(CAMOUFLAGE_GRID, none)[:, 0]
    donor = find_donors(image_products, present, below(words[2], GROUP))
    donor = torch.where(camouflage_slot != NONE, donor, NONE)
    return Moves(
        permutation=below(words[1], len(PERMUTATIONS)) * (present & rules.jigsaw),
        camouflage_slot=camouflage_slot,
        donor=donor,
        donor_slot=torch.where(donor != NONE, below(words[3], CAMOUFLAGE_GRID**2), NONE),
        grey_slots=slots.get(GREY_GRID, none[:, :0]),
        blank_slots=slots.get(rules.blank_grid, none[:, :0]),
    )


def _masked_ids(tokens: Tensor, masked: Tensor, words: Words, rules: PlanRules) -> Tensor:
    """(B, T): of ten masked tokens eight become [MASK], one a random ordinary id, one stays (step 3)."""
    action = below(words[1], 10)
    num_ordinary = rules.ordinary_last - rules.ordinary_first + 1
    ids = torch.where(action == 8, rules.ordinary_first + below(words[2], num_ordinary), tokens)
    return torch.where(masked, torch.where(action < 8, rules.mask_id, ids), tokens)


def _ascending(taken: Tensor, count: int) -> Tensor:
    """(B, count) int64: the indices at which (B, n) `taken` holds, ascending, then NONE."""
    taken = torch.nn.functional.pad(taken, (0, max(0, count - taken.shape[1])))
    index = (~taken).to(torch.uint8).argsort(dim=1, stable=True)[:, :count]
    return torch.where(taken.gather(1, index), index, NONE)


# The operator takes what torch.library can write into a schema; the public function takes PlanRules.
@torch.library.custom_op("kaleido_fast::plan", mutates_args=(), device_types="cpu")
def _plan_op(
    tokens: Tensor, lengths: Tensor, alignment: Tensor, keys: Tensor, image_products: Tensor, present: Tensor,
    seed: Tensor, epochs: Tensor, mask_id: int, ordinary_first: int, ordinary_last: int, grids: Sequence[int],
    rotation: bool, jigsaw: bool, camouflage: bool, num_grey: int, num_blank: int, blank_grid: int,
    max_masked_tokens: int, guided: bool,
) -> tuple[(Tensor,) * len(Plan._fields)]:
    rules = PlanRules(
        mask_id, ordinary_first, ordinary_last, tuple(grids), rotation, jigsaw, camouflage, num_grey,
        num_blank, blank_grid, max_masked_tokens, guided,
    )
    outputs = plan_reference(tokens, lengths, alignment, keys, image_products, present, seed, epochs, rules)
    return tuple(outputs)


@_plan_op.register_kernel("cuda")
def _plan_cuda(
    tokens: Tensor, lengths: Tensor, alignment: Tensor, keys: Tensor, image_products: Tensor, present: Tensor,
    seed: Tensor, epochs: Tensor, mask_id: int, ordinary_first: int, ordinary_last: int, grids: Sequence[int],
    *switches: bool | int,
) -> tuple[Tensor, ...]:
    rules = PlanRules(mask_id, ordinary_first, ordinary_last, tuple(grids), *switches)
    outputs = plan_triton(tokens, lengths, alignment, keys, image_products, present, seed, epochs, rules)
    return tuple(outputs)


@_plan_op.register_fake
def _plan_fake(
    tokens: Tensor, lengths: Tensor, alignment: Tensor, keys: Tensor, image_products: Tensor, present: Tensor,
    seed: Tensor, epochs: Tensor, mask_id: int, ordinary_first: int, ordinary_last: int, grids: Sequence[int],
    rotation: bool, jigsaw: bool, camouflage: bool, num_grey: int, num_blank: int, blank_grid: int,
    max_masked_tokens: int, guided: bool,
) -> tuple[Tensor, ...]:
    shapes = output_shapes(*tokens.shape, grids, num_grey, num_blank, max_masked_tokens)
    return tuple(tokens.new_empty(shape, dtype=torch.int32) for shape in shapes)


def plan(
    tokens: Tensor, lengths: Tensor, alignment: Tensor, keys: Tensor, image_products: Tensor,
    text_products: Tensor, present: Tensor, match: Tensor, seed: Tensor, epochs: Tensor, rules: PlanRules,
) -> Plan:
    """Draw the plan of a batch of whole groups; row b is member b % 16 of its group.

    Matched and mismatched samples are treated exactly alike: `text_products` and `match` belong to a batch
    and are never read, for a mask that knew the ITM label would give it away.

    Args:
        tokens: (B, T) int32, [CLS] ... [SEP], then anything.
        lengths: (B,) int32, [CLS] and [SEP] included.
        alignment: (B, T) int64, bit p: the token goes with position p.
        keys: (B,) int64 holding the bits of the sample keys.
        image_products, text_products: (B,) int64.
        present: (B,) bool, False for a hole: it stays clean, masks nothing and is nobody's donor.
        match: (B,) bool, the ITM label.
        seed: () int64.
        epochs: (B,) int64, at most 2^28 - 1.
    Returns:
        A Plan on the tensors' device.
    Raises:
        ValueError: a shape or dtype is wrong, or B is not a multiple of 16.
    """
    _check(tokens, seed, {
        "lengths": lengths, "alignment": alignment, "keys": keys, "image_products": image_products,
        "text_products": text_products, "present": present, "match": match, "epochs": epochs,
    })
    return Plan(*_plan_op(
        tokens, lengths, alignment, keys, image_products, present, seed, epochs, rules.mask_id,
        rules.ordinary_first, rules.ordinary_last, rules.grids, rules.rotation, rules.jigsaw,
        rules.camouflage, rules.num_grey, rules.num_blank, rules.blank_grid, rules.max_masked_tokens,
        rules.guided,
    ))


def clean_plan(tokens: Tensor, grids: tuple[int, ...] = GRIDS) -> Plan:
    """The plan of retrieval and recognition: nothing masked, turned or moved, no greyed rows (G = Z = M = 0).

    Args:
        tokens: (B, T) int32; B need not be whole groups.
        grids: () where the text stands alone, K = 0.
    """
    zeros = torch.zeros_like(tokens[:, 0])
    none, empty = torch.full_like(zeros, NONE), tokens[:, :0]
    source = clean_source(len(tokens), grids, 0, tokens.device).to(torch.int32)
    return Plan(
        rotation=zeros, permutation=zeros, camouflage_slot=none, donor=none, donor_slot=none,
        camouflage_label=torch.full_like(zeros, IGNORED), grey_slots=empty, blank_slots=empty, source=source,
        masked_tokens=tokens, masked_positions=empty, masked_labels=empty, num_masked=zeros,
    )


_DTYPES = {  # of what has a row a sample
    "lengths": torch.int32, "alignment": torch.int64, "keys": torch.int64, "image_products": torch.int64,
    "text_products": torch.int64, "present": torch.bool, "match": torch.bool, "epochs": torch.int64,
}


def _check(tokens: Tensor, seed: Tensor, columns: dict[str, Tensor]) -> None:
    if tokens.dim() != 2 or tokens.dtype != torch.int32 or not tokens.shape[1] or tokens.shape[0] % GROUP:
        raise ValueError(
            f"plan: tokens {tuple(tokens.shape)} {tokens.dtype} must be (B, T) int32, B a multiple of"
            f" {GROUP}; hand over whole groups, absent members with present=False"
        )
    if seed.dim() or seed.dtype != torch.int64:
        raise ValueError(
            f"plan: seed {tuple(seed.shape)} {seed.dtype} must be () torch.int64; use torch.tensor(seed)"
        )
    for name, tensor in columns.items():
        shape = tuple(tokens.shape) if name == "alignment" else (tokens.shape[0],)
        if tuple(tensor.shape) != shape or tensor.dtype != _DTYPES[name]:
            raise ValueError(
                f"plan: {name} {tuple(tensor.shape)} {tensor.dtype} must be {shape} {_DTYPES[name]}; it goes"
                " row by row with tokens"
            )
