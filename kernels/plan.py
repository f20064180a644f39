"""plan: everything random about a batch, known before any pixel is touched (SPEC 2, 3 and 6).

What each kaleido task does to its level (tasks.py), which tokens are masked, and the encoded row that each input position
reads. Every draw is indexed by seed, epoch, sample key and purpose (philox.py): but for a swap's donor, who comes from the
sample's group, nothing depends on the batch around a sample. All integers, so every implementation equals
tests/golden/plan.npz bit for bit.

Shapes: B samples (whole groups of 16), T tokens, K positions.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from kaleido_fast.kernels.geometry import GRIDS, positions_of_grid
from kaleido_fast.kernels.masking import Budgets, States, aligned_pairs, fill, untouched, walk
from kaleido_fast.kernels.philox import PATCH, SAMPLE, TOKEN, Words, below, draw
from kaleido_fast.kernels.plan_outputs import Plan, PlanInputs, output_shapes
from kaleido_fast.kernels.plan_rules import GROUP, IGNORED, NONE, PlanRules, token_budget
from kaleido_fast.kernels.plan_triton import plan_triton
from kaleido_fast.kernels.source import Moves, clean_source, find_donors, moved_source
from kaleido_fast.kernels.tasks import TaskRule, as_lists, from_lists, task_of_grid


def plan_reference(inputs: PlanInputs, seed: Tensor, rules: PlanRules) -> Plan:
    """`plan` in plain PyTorch, arguments as there: the CPU path, and the truth for kernels."""
    tokens, present, epochs, keys = inputs.tokens, inputs.present, inputs.epochs, inputs.keys
    place, position = (torch.arange(n, device=tokens.device) for n in (tokens.shape[1], rules.num_positions))
    token_words = draw(seed, epochs[:, None], keys[:, None], TOKEN, place)
    patch_words = draw(seed, epochs[:, None], keys[:, None], PATCH, position)

    maskable = (place >= 1) & (place < inputs.lengths[:, None] - 1) & present[:, None]
    num_tokens = token_budget(maskable.sum(dim=1), rules.max_masked_tokens)
    budgets = Budgets(num_tokens, _patch_budgets(present, rules))
    states = _guided_states(torch.where(maskable, inputs.alignment, 0), budgets, seed, epochs, keys, rules)
    masked = fill(states.tokens, maskable, token_words[0], budgets.tokens)

    indices = {task.draw for task in rules.tasks if task.num_classes}
    sample_words = {index: draw(seed, epochs, keys, SAMPLE, index) for index in indices}
    moves = [_moves(task, _taken_slots(task, states.patches, patch_words[0], present, rules.grids),
                    sample_words.get(task.draw), inputs) for task in rules.tasks]
    swaps = [move for task, move in zip(rules.tasks, moves, strict=True) if task.effect == "swap"]
    positions = _ascending(masked, rules.max_masked_tokens)
    drawn = Plan(
        labels=_side_by_side([move.label for move in moves], tokens),
        slots=torch.cat([tokens.new_empty(len(tokens), 0), *(move.slots for move in moves)], dim=1),
        donors=_side_by_side([move.donor for move in swaps], tokens),
        donor_slots=_side_by_side([move.donor_slot for move in swaps], tokens),
        source=moved_source(moves, rules, len(tokens), tokens.device),
        masked_tokens=_masked_ids(tokens, masked, token_words, rules),
        masked_positions=positions,
        masked_labels=torch.where(positions != NONE, tokens.gather(1, positions.clamp(min=0)), IGNORED),
        num_masked=masked.sum(dim=1),
        tasks=rules.tasks,
    )
    return drawn.map(lambda x: x.to(torch.int32, memory_format=torch.contiguous_format))


def _patch_budgets(present: Tensor, rules: PlanRules) -> Tensor:
    """(B, L) int64: slots to take on each grid, 0 in a hole."""
    tasks = [task_of_grid(rules.tasks, grid) for grid in rules.grids]
    budgets = torch.tensor([task.num_slots if task else 0 for task in tasks], dtype=torch.int64, device=present.device)
    return present[:, None] * budgets


def _guided_states(
    alignment: Tensor, budgets: Budgets, seed: Tensor, epochs: Tensor, keys: Tensor, rules: PlanRules
) -> States:
    """What step 1 leaves; under random masking nothing is touched."""
    num_samples, num_tokens = alignment.shape
    start = untouched(num_samples, num_tokens, rules.num_positions, alignment.device)
    if not rules.guided:
        return start
    return walk(aligned_pairs(alignment, seed, epochs, keys, rules.grids), budgets, start, rules.grids)


def _taken_slots(task: TaskRule, states: Tensor, priority: Tensor, present: Tensor, grids: tuple[int, ...]) -> Tensor:
    """(B, num_slots) int64, ascending; NONE in a hole."""
    if not task.num_slots:
        return states[:, :0]
    cells = positions_of_grid(grids, task.grid)
    state = states[:, cells]
    taken = fill(state, torch.ones_like(state, dtype=torch.bool), priority[:, cells], present * task.num_slots)
    return _ascending(taken, task.num_slots)


def _moves(task: TaskRule, slots: Tensor, words: Words | None, inputs: PlanInputs) -> Moves:
    """What a task does to its level; `words` are its draw in the sample's stream, None for a task without classes."""
    none = torch.full_like(inputs.products, NONE)
    label, donor, donor_slot = torch.full_like(none, IGNORED), none, none
    if words is None:
        return Moves(label, slots, donor, donor_slot)
    if task.effect == "turn":
        label = below(words[0], task.num_classes) * inputs.present
    elif task.effect == "permute":
        label = below(words[1], task.num_classes) * inputs.present
    elif task.effect == "swap":
        donor = find_donors(inputs.products, inputs.present, below(words[2], GROUP))
        donor = torch.where(slots[:, 0] != NONE, donor, NONE)
        donor_slot = torch.where(donor != NONE, below(words[3], task.num_classes), NONE)
        label = torch.where(donor != NONE, slots[:, 0], IGNORED)
    return Moves(label, slots, donor, donor_slot)


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


def _side_by_side(columns: list[Tensor], tokens: Tensor) -> Tensor:
    """(B, n) of n columns (B,)."""
    return torch.stack(columns, dim=1) if columns else tokens.new_empty(len(tokens), 0)


# The operator takes what torch.library can write into a schema; the public function takes PlanInputs and PlanRules.
_SCHEMA = "({}) -> ({})".format(
    ", ".join([
        *(f"Tensor {name}" for name in (*PlanInputs._fields, "seed")),
        *(f"int {name}" for name in ("mask_id", "ordinary_first", "ordinary_last", "max_masked_tokens")), "bool guided",
        *(f"int[] {name}" for name in ("grids", "task_grids", "task_effects", "task_counts", "task_draws")),
    ]),
    ", ".join(["Tensor"] * (len(Plan._fields) - 1)),
)
Arguments = tuple[
    Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, int, int, int, int, bool,
    Sequence[int], Sequence[int], Sequence[int], Sequence[int], Sequence[int],
]


@torch.library.custom_op("kaleido_fast::plan", mutates_args=(), device_types="cpu", schema=_SCHEMA)
def _plan_op(*arguments: *Arguments) -> tuple[Tensor, ...]:
    return plan_reference(*_from_arguments(arguments)).tensors


@_plan_op.register_kernel("cuda")
def _plan_cuda(*arguments: *Arguments) -> tuple[Tensor, ...]:
    return plan_triton(*_from_arguments(arguments)).tensors


@_plan_op.register_fake
def _plan_fake(*arguments: *Arguments) -> tuple[Tensor, ...]:
    inputs, _, rules = _from_arguments(arguments)
    batch, width = inputs.tokens.shape
    shapes = output_shapes(batch, width, rules)
    return tuple(inputs.tokens.new_empty(shape, dtype=torch.int32) for shape in shapes)


def operator_arguments(inputs: PlanInputs, seed: Tensor, rules: PlanRules) -> Arguments:
    """The arguments of the operator, in the order of its schema."""
    return (
        *inputs, seed, rules.mask_id, rules.ordinary_first, rules.ordinary_last, rules.max_masked_tokens, rules.guided,
        list(rules.grids), *as_lists(rules.tasks),
    )


def _from_arguments(arguments: Arguments) -> tuple[PlanInputs, Tensor, PlanRules]:
    seed, mask_id, ordinary_first, ordinary_last, max_masked_tokens, guided, grids = arguments[7:14]
    rules = PlanRules(
        mask_id, ordinary_first, ordinary_last, from_lists(*arguments[14:]), tuple(grids), max_masked_tokens, guided
    )
    return PlanInputs(*arguments[:7]), seed, rules


def plan(inputs: PlanInputs, seed: Tensor, rules: PlanRules) -> Plan:
    """Draw the plan of a batch of whole groups.

    Args:
        seed: () int64.
    Returns:
        A Plan on the tensors' device.
    Raises:
        ValueError: a shape or dtype is wrong, or B is not a multiple of 16.
    """
    _check(inputs, seed)
    return Plan._make((*_plan_op(*operator_arguments(inputs, seed, rules)), rules.tasks))


def clean_plan(tokens: Tensor, grids: tuple[int, ...] = GRIDS) -> Plan:
    """The plan of retrieval and recognition: no task, nothing masked and no greyed rows (G = M = 0).

    Args:
        tokens: (B, T) int32; B need not be whole groups.
        grids: () where the text stands alone, K = 0.
    """
    empty, source = tokens[:, :0], clean_source(len(tokens), grids, 0, tokens.device).to(torch.int32)
    return Plan(
        labels=empty, slots=empty, donors=empty, donor_slots=empty, source=source, masked_tokens=tokens,
        masked_positions=empty, masked_labels=empty, num_masked=torch.zeros_like(tokens[:, 0]), tasks=(),
    )


_DTYPES = {
    "tokens": torch.int32, "lengths": torch.int32, "alignment": torch.int64, "keys": torch.int64, "products": torch.int64,
    "present": torch.bool, "epochs": torch.int64,
}


def _check(inputs: PlanInputs, seed: Tensor) -> None:
    tokens = inputs.tokens
    if tokens.dim() != 2 or tokens.dtype != torch.int32 or not tokens.shape[1] or tokens.shape[0] % GROUP:
        raise ValueError(
            f"plan: tokens {tuple(tokens.shape)} {tokens.dtype} must be (B, T) int32, B a multiple of"
            f" {GROUP}; hand over whole groups, absent members with present=False"
        )
    if seed.dim() or seed.dtype != torch.int64:
        raise ValueError(
            f"plan: seed {tuple(seed.shape)} {seed.dtype} must be () torch.int64; use torch.tensor(seed)"
        )
    for name, dtype in _DTYPES.items():
        tensor: Tensor = getattr(inputs, name)
        shape = tuple(tokens.shape) if name in ("tokens", "alignment") else (tokens.shape[0],)
        if tuple(tensor.shape) != shape or tensor.dtype != dtype:
            raise ValueError(
                f"plan: {name} {tuple(tensor.shape)} {tensor.dtype} must be {shape} {dtype}; it goes"
                " row by row with tokens"
            )
