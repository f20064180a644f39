"""plan's masking (SPEC 6, steps 1 to 3): budgets, pairs first, evidence, fall-back, holes, tasks off."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kaleido_fast.kernels import masking
from kaleido_fast.kernels.geometry import GRIDS, offset_of_grid
from kaleido_fast.kernels.masking import OPEN, PASSED, TAKEN, aligned_pairs, fill
from kaleido_fast.kernels.plan_outputs import Plan
from kaleido_fast.kernels.plan_rules import IGNORED, NONE, PlanRules, token_budget
from kaleido_fast.kernels.tasks import TaskRule
from tests.kernels.plan_cases import BLANK, CAMOUFLAGE, FIVE, GREY, JIGSAW, ROTATION, plan_of, rules_of, without

Batch = dict[str, Tensor]
MakeBatch = Callable[..., Batch]
RULES, RANDOM = rules_of(), rules_of(guided=False)
LEVELS = {CAMOUFLAGE: (5, 14), GREY: (14, 30), BLANK: (30, 55)}  # positions of levels 3, 4, 5


def align(batch: Batch, pairs: list[tuple[int, int]]) -> Batch:
    """The batch with full-length texts and these (token, position) pairs aligned, no others."""
    alignment = torch.zeros_like(batch["alignment"])
    for token, position in pairs:
        alignment[:, token] |= 1 << position
    return batch | {"alignment": alignment, "lengths": torch.full_like(batch["lengths"], alignment.shape[1])}


def masked_tokens_of(drawn: Plan, num_tokens: int) -> Tensor:
    """(B, T) bool."""
    places = torch.arange(num_tokens)
    return (drawn.masked_positions[:, :, None] == places).any(dim=1)


def masked_patches_of(drawn: Plan) -> Tensor:
    """(B, 55) bool."""
    taken = torch.cat([drawn.part(task).slots + first for task, (first, _) in LEVELS.items()], dim=1)
    return (taken[:, :, None] == torch.arange(55)).any(dim=1)


@pytest.mark.parametrize("bits", [0, 0.03, 0.5])
@pytest.mark.parametrize("rules", [RULES, RANDOM], ids=["guided", "random"])
def test_budgets_are_used_up_exactly(bits: float, rules: PlanRules, make_batch: MakeBatch) -> None:
    batch = make_batch(512, num_tokens=64, bits=bits)
    drawn = plan_of(batch, rules)
    assert torch.equal(drawn.num_masked, token_budget(batch["lengths"] - 2, 10))
    assert torch.equal((drawn.masked_positions != NONE).sum(dim=1), drawn.num_masked)
    patches = masked_patches_of(drawn)
    for task, (first, last) in LEVELS.items():
        assert (patches[:, first:last].sum(dim=1) == task.num_slots).all()


def test_only_what_lies_between_cls_and_sep_is_masked(make_batch: MakeBatch) -> None:
    batch = make_batch(512)
    drawn = plan_of(batch, RULES)
    chosen = drawn.masked_positions != NONE
    assert (drawn.masked_positions[chosen] >= 1).all()
    assert (drawn.masked_positions < batch["lengths"][:, None] - 1).all()
    ordered = drawn.masked_positions.diff(dim=1)[chosen[:, 1:]]
    assert (ordered > 0).all()
    assert torch.equal(chosen, torch.arange(10) < drawn.num_masked[:, None])  # padding last
    changed = drawn.masked_tokens != batch["tokens"]
    assert not (changed & ~masked_tokens_of(drawn, 24)).any()


def test_labels_are_the_original_ids(make_batch: MakeBatch) -> None:
    batch = make_batch(512)
    drawn = plan_of(batch, RULES)
    originals = batch["tokens"].gather(1, drawn.masked_positions.clamp(min=0).long())
    assert torch.equal(drawn.masked_labels, torch.where(drawn.masked_positions != NONE, originals, IGNORED))


def test_every_pair_with_room_is_honoured(make_batch: MakeBatch) -> None:
    """Four pairs that share nothing, within every budget: one side of each is masked, the other visible."""
    pairs = [(2, 6), (3, 15), (4, 31), (5, 40)]
    drawn = plan_of(align(make_batch(256, num_tokens=64), pairs), RULES)
    tokens, patches = masked_tokens_of(drawn, 64), masked_patches_of(drawn)
    for token, position in pairs:
        assert (tokens[:, token] ^ patches[:, position]).all()
        assert 64 < int(tokens[:, token].sum()) < 192  # both sides occur
    without = plan_of(align(make_batch(256, num_tokens=64), []), RULES)
    assert not masked_patches_of(without)[:, 15].all() and not masked_tokens_of(without, 64)[:, 2].all()


@pytest.mark.parametrize("position", [0, 1, 4])
def test_pairs_of_levels_1_and_2_count_for_nothing(position: int, make_batch: MakeBatch) -> None:
    batch = make_batch(64, num_tokens=64)
    drawn, without = (plan_of(align(batch, pairs), RULES) for pairs in ([(2, position)], []))
    assert all(torch.equal(a, b) for a, b in zip(drawn.tensors, without.tensors, strict=True))


def both_sides_masked(drawn: Plan, batch: Batch) -> int:
    """Aligned pairs of levels 3 to 5 that lose their token and their patch."""
    aligned = ((batch["alignment"][:, :, None] >> torch.arange(55)) & 1).bool()
    tokens, patches = masked_tokens_of(drawn, batch["tokens"].shape[1]), masked_patches_of(drawn)
    return int((aligned & tokens[:, :, None] & patches[:, None])[:, :, 5:].sum())


def test_evidence_stays_visible(make_batch: MakeBatch) -> None:
    """A lone pair never loses both sides; of many (two may cross) far fewer do than under random masking."""
    lone = align(make_batch(512, num_tokens=64), [(2, 40)])
    assert both_sides_masked(plan_of(lone, RULES), lone) == 0
    assert both_sides_masked(plan_of(lone, RANDOM), lone) > 0
    many = make_batch(512, num_tokens=64, bits=0.004)
    at_random = both_sides_masked(plan_of(many, RANDOM), many)
    assert 0 < both_sides_masked(plan_of(many, RULES), many) < at_random / 2


def test_side_without_room_falls_to_the_other(make_batch: MakeBatch) -> None:
    """Eight tokens aligned with a level-3 patch each: at most one patch is taken, the others give a token."""
    batch = align(make_batch(256, num_tokens=64), [(token, 4 + token) for token in range(1, 9)])
    drawn = plan_of(batch, RULES)
    tokens, patches = masked_tokens_of(drawn, 64)[:, 1:9], masked_patches_of(drawn)[:, 5:13]
    assert (tokens ^ patches).all()
    assert set(patches.sum(dim=1).tolist()) == {0, 1}


def test_short_text_falls_back_to_what_was_passed_over(make_batch: MakeBatch) -> None:
    """One maskable token aligned with every patch: whichever side its pairs take, every budget is used up."""
    batch = make_batch(64, num_tokens=3)
    batch["lengths"][:], batch["alignment"][:, 1] = 3, -1
    drawn = plan_of(batch, RULES)
    assert (drawn.num_masked == 1).all() and (drawn.masked_positions[:, 0] == 1).all()
    assert (masked_patches_of(drawn).sum(dim=1) == 6).all()


def test_random_masking_is_step_2_alone(make_batch: MakeBatch) -> None:
    batch = make_batch(256, bits=0.2)
    drawn = plan_of(batch, RANDOM)
    unaligned = plan_of(align(batch, []) | {"lengths": batch["lengths"]}, RULES)
    assert all(torch.equal(a, b) for a, b in zip(drawn.tensors, unaligned.tensors, strict=True))
    guided = plan_of(batch, RULES)
    assert not torch.equal(drawn.masked_positions, guided.masked_positions)
    assert all(torch.equal(drawn.part(task).label, guided.part(task).label) for task in (ROTATION, JIGSAW))


def test_all_text_is_special(make_batch: MakeBatch) -> None:
    batch = make_batch(32)
    batch["lengths"][:] = 2
    drawn = plan_of(batch, RULES)
    assert (drawn.num_masked == 0).all() and (drawn.masked_labels == IGNORED).all()
    assert torch.equal(drawn.masked_tokens, batch["tokens"])


def test_holes_are_clean_and_nobodys_donor(make_batch: MakeBatch) -> None:
    batch = make_batch(256, bits=0.1)
    holes = torch.rand(256, generator=torch.Generator().manual_seed(3)) < 0.4
    drawn = plan_of(batch | {"present": ~holes}, RULES)
    source = torch.arange(256)[:, None] * 57 + torch.arange(55)
    assert torch.equal(drawn.source[holes].long(), source[holes])
    assert torch.equal(drawn.masked_tokens[holes], batch["tokens"][holes])
    assert (drawn.part(CAMOUFLAGE).label[holes] == IGNORED).all() and (drawn.masked_labels[holes] == IGNORED).all()
    for name in ("slots", "donors", "donor_slots", "masked_positions"):
        assert (getattr(drawn, name)[holes] == NONE).all(), name
    for values in (drawn.part(ROTATION).label, drawn.part(JIGSAW).label, drawn.num_masked):
        assert (values[holes] == 0).all()
    assert not holes[drawn.donors[drawn.donors != NONE].long()].any()
    full = plan_of(batch, RULES)
    through_the_donor = {"donors", "source", "donor_slots", "labels"}
    for name in set(Plan._fields) - through_the_donor - {"tasks"}:
        assert torch.equal(getattr(drawn, name)[~holes], getattr(full, name)[~holes]), name
    for task in set(FIVE) - {CAMOUFLAGE}:
        assert torch.equal(drawn.part(task).label[~holes], full.part(task).label[~holes]), task


def test_lonely_sample_keeps_its_camouflage_slot(make_batch: MakeBatch) -> None:
    """No other product in the group: the slot is taken, shows its own patch, and has no label."""
    batch = make_batch(16)
    batch["products"][:] = 3
    drawn = plan_of(batch, RULES)
    assert (drawn.donors == NONE).all() and (drawn.donor_slots == NONE).all()
    label, slots = drawn.part(CAMOUFLAGE)
    assert (label == IGNORED).all() and (slots >= 0).all()
    own = torch.arange(16)[:, None] * 57 + torch.arange(5, 14)
    assert torch.equal(drawn.source[:, 5:14].long(), own)


def test_donor_is_of_the_group_and_of_another_product(make_batch: MakeBatch) -> None:
    batch = make_batch(512)
    drawn = plan_of(batch, RULES)
    rows, donor = torch.arange(512), drawn.donors[:, 0]
    assert (donor != NONE).all() and torch.equal(donor // 16, (rows // 16).int())
    assert (batch["products"][donor.long()] != batch["products"]).all()


@pytest.mark.parametrize("off", FIVE, ids=lambda task: task.effect)
def test_task_that_is_off_leaves_its_level_clean(off: TaskRule, make_batch: MakeBatch) -> None:
    """All else is drawn as with it; so a further task changes none of the others either."""
    batch, full = make_batch(64, bits=0), plan_of(make_batch(64, bits=0), RULES)
    rules = rules_of(**without(off))
    drawn, first = plan_of(batch, rules), offset_of_grid(GRIDS, off.grid)
    own = torch.arange(64)[:, None] * rules.num_rows + torch.arange(55)
    level = slice(first, first + off.grid**2)
    assert torch.equal(drawn.source[:, level].long(), own[:, level])
    assert not torch.equal(full.source[:, level].long(), torch.arange(64)[:, None] * 57 + own[0, level]) or off == ROTATION
    for task in rules.tasks:
        assert all(torch.equal(a, b) for a, b in zip(drawn.part(task), full.part(task), strict=True)), task


def test_further_tasks_draw_words_of_their_own(make_batch: MakeBatch) -> None:
    """A second turn and swap: uniform, and neither the first's nor each other's."""
    batch = make_batch(2048, bits=0)
    turn, swap = TaskRule(4, "turn", draw=2), TaskRule(5, "swap", 1, draw=3)
    drawn = plan_of(batch, rules_of(tasks=(*FIVE[:3], turn, swap)))
    assert drawn.donors.shape == drawn.donor_slots.shape == (2048, 2)
    for one, other in ((drawn.part(ROTATION).label, drawn.part(turn).label), (drawn.donors.T), (drawn.donor_slots.T)):
        assert 0.6 < float((one != other).float().mean()) < 0.99
    assert drawn.part(turn).label.bincount().tolist() == pytest.approx([512] * 4, rel=0.2)
    shown = drawn.source[:, 30:55].gather(1, drawn.part(swap).slots.long())[:, 0]
    assert torch.equal(shown, drawn.donors[:, 1] * 55 + 30 + drawn.donor_slots[:, 1])


def test_fill_takes_open_before_passed_and_lower_index_of_equals() -> None:
    state = torch.tensor([[OPEN, PASSED, OPEN, TAKEN, OPEN, PASSED]]).expand(4, -1)
    priority = torch.tensor([[5, 2**32 - 1, 9, 0, 9, 2**32 - 1]]).expand(4, -1)
    allowed = torch.ones(4, 6, dtype=torch.bool)
    taken = fill(state, allowed, priority, torch.tensor([1, 2, 4, 5]))
    assert [row.nonzero()[:, 0].tolist() for row in taken] == [[3], [2, 3], [0, 2, 3, 4], [0, 1, 2, 3, 4]]
    allowed[:, 2] = False
    everything = fill(state, allowed, priority, torch.full((4,), 9))
    assert torch.equal(everything, allowed)


def test_equal_pairs_walk_by_token_then_position(monkeypatch: pytest.MonkeyPatch) -> None:
    same = torch.zeros((), dtype=torch.int64)
    monkeypatch.setattr(masking, "draw", lambda *a: [same.expand(len(a[2]))] * 4)
    alignment = torch.tensor([[0, 1 << 40 | 1 << 7, 1 << 5], [1 << 9, 0, 0]])
    pairs = aligned_pairs(alignment, same, torch.zeros(2).long(), torch.zeros(2).long(), (1, 2, 3, 4, 5))
    assert pairs.token[0].tolist() == [1, 1, 2] and pairs.position[0].tolist() == [7, 40, 5]
    assert pairs.exists.tolist() == [[True] * 3, [True, False, False]] and pairs.position[1, 0] == 9
