"""plan: the golden file bit for bit, however it is batched; the operator; errors."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kaleido_fast.kernels.plan import clean_plan, plan
from kaleido_fast.kernels.plan_outputs import Plan
from kaleido_fast.kernels.plan_rules import GROUP, PlanRules
from kaleido_fast.kernels.source import clean_source

Batch = dict[str, Tensor]


def take(batch: Batch, rows: Tensor) -> Batch:
    return {name: tensor[rows] if tensor.dim() else tensor for name, tensor in batch.items()}


def rows_of_groups(groups: Tensor) -> Tensor:
    return (groups[:, None] * GROUP + torch.arange(GROUP)).flatten()


def moved(outputs: Batch, rows: Tensor, num_rows: int) -> Batch:
    """What `plan` must give for `rows` of a batch: donors and sources follow the rows to their new places."""
    taken = {name: tensor[rows] for name, tensor in outputs.items()}
    place = torch.full((len(outputs["donor"]),), -1)
    place[rows] = torch.arange(len(rows))
    for name, size in (("donor", 1), ("source", num_rows)):
        old = taken[name].long()
        new = place[old.clamp(min=0) // size] * size + old.clamp(min=0) % size
        taken[name] = torch.where(old < 0, old, new).int()
    return taken


def assert_equal(drawn: Plan, expected: Batch) -> None:
    assert set(expected) == set(Plan._fields)
    for name, value in drawn._asdict().items():
        assert value.dtype == torch.int32 and value.shape == expected[name].shape, name
        assert torch.equal(value, expected[name]), name


def test_golden_file(golden_batch: Batch, golden_outputs: Batch, golden_rules: PlanRules) -> None:
    assert_equal(plan(**golden_batch, rules=golden_rules), golden_outputs)


@pytest.mark.parametrize("groups", [[0], [17], [47], range(3, 9), range(47, -1, -1)], ids=str)
def test_golden_groups_in_any_batch(
    groups: list[int], golden_batch: Batch, golden_outputs: Batch, golden_rules: PlanRules
) -> None:
    rows = rows_of_groups(torch.tensor(groups))
    drawn = plan(**take(golden_batch, rows), rules=golden_rules)
    assert_equal(drawn, moved(golden_outputs, rows, golden_rules.num_rows))


def test_golden_groups_shuffled(golden_batch: Batch, golden_outputs: Batch, golden_rules: PlanRules) -> None:
    rows = rows_of_groups(torch.randperm(48, generator=torch.Generator().manual_seed(1)))
    drawn = plan(**take(golden_batch, rows), rules=golden_rules)
    assert_equal(drawn, moved(golden_outputs, rows, golden_rules.num_rows))


def test_group_of_holes_changes_nothing_for_the_rest(
    golden_batch: Batch, golden_outputs: Batch, golden_rules: PlanRules
) -> None:
    rows = rows_of_groups(torch.tensor([5, 6, 7]))
    batch = take(golden_batch, rows)
    batch["present"][GROUP : 2 * GROUP] = False
    kept = torch.cat([torch.arange(GROUP), torch.arange(2 * GROUP, 3 * GROUP)])
    expected = moved(golden_outputs, rows, golden_rules.num_rows)
    drawn = plan(**batch, rules=golden_rules)
    assert_equal(Plan(*(x[kept] for x in drawn)), {name: x[kept] for name, x in expected.items()})


def test_non_contiguous_arguments(
    golden_batch: Batch, golden_outputs: Batch, golden_rules: PlanRules
) -> None:
    strided = {name: torch.stack([x, x], dim=-1)[..., 0] for name, x in golden_batch.items()}
    assert not strided["tokens"].is_contiguous()
    assert_equal(plan(**strided, rules=golden_rules), golden_outputs)


def test_what_follows_sep_is_free(
    golden_batch: Batch, golden_outputs: Batch, golden_rules: PlanRules
) -> None:
    """Ids and alignment bits on specials and padding change no draw, and those ids stay as they are."""
    place = torch.arange(64)
    inside = (place >= 1) & (place < golden_batch["lengths"][:, None] - 1)
    noise = golden_batch | {
        "tokens": torch.where(inside, golden_batch["tokens"], 7),
        "alignment": torch.where(inside, golden_batch["alignment"], -1),
    }
    masked = torch.where(inside, golden_outputs["masked_tokens"], 7)
    assert_equal(plan(**noise, rules=golden_rules), golden_outputs | {"masked_tokens": masked})


@pytest.mark.parametrize("changed", ["seed", "epochs", "keys"])
def test_seed_epoch_and_key_change_every_draw(
    changed: str, golden_batch: Batch, golden_outputs: Batch, golden_rules: PlanRules
) -> None:
    drawn = plan(**golden_batch | {changed: golden_batch[changed] ^ 1}, rules=golden_rules)
    for name in set(Plan._fields) - {"num_masked"}:
        assert not torch.equal(getattr(drawn, name), golden_outputs[name]), name


def test_plan_never_reads_label_or_text_product(
    golden_batch: Batch, golden_outputs: Batch, golden_rules: PlanRules
) -> None:
    blind = {"match": ~golden_batch["match"], "text_products": golden_batch["text_products"] + 1}
    assert_equal(plan(**golden_batch | blind, rules=golden_rules), golden_outputs)


def test_empty_batch(golden_batch: Batch, golden_rules: PlanRules) -> None:
    drawn = plan(**take(golden_batch, torch.arange(0)), rules=golden_rules)
    assert drawn.source.shape == (0, 55) and drawn.masked_tokens.shape == (0, 64)


@pytest.mark.parametrize("grids", [(1, 2, 3, 4, 5), (8,), ()])
def test_clean_plan_moves_nothing(grids: tuple[int, ...]) -> None:
    tokens = torch.randint(0, 999, (5, 7), dtype=torch.int32, generator=torch.Generator().manual_seed(0))
    clean = clean_plan(tokens, grids)
    assert torch.equal(clean.masked_tokens, tokens)
    assert torch.equal(clean.source, clean_source(5, grids, 0, tokens.device).int())
    assert all(x.dtype == torch.int32 and len(x) == 5 for x in clean)
    assert clean.grey_slots.shape == clean.blank_slots.shape == clean.masked_positions.shape == (5, 0)
    for name, value in (("rotation", 0), ("permutation", 0), ("num_masked", 0), ("camouflage_label", -100)):
        assert (getattr(clean, name) == value).all(), name
    assert (clean.donor == -1).all() and (clean.camouflage_slot == -1).all()


def operator_arguments(batch: Batch, rules: PlanRules) -> tuple[object, ...]:
    names = ("tokens", "lengths", "alignment", "keys", "image_products", "present", "seed", "epochs")
    return (
        *(batch[name] for name in names), rules.mask_id, rules.ordinary_first, rules.ordinary_last,
        list(rules.grids), rules.rotation, rules.jigsaw, rules.camouflage, rules.num_grey, rules.num_blank,
        rules.blank_grid, rules.max_masked_tokens, rules.guided,
    )


COLOURLESS = {"grids": (1, 2, 3), "num_grey": 0, "num_blank": 0, "max_masked_tokens": 0}


@pytest.mark.parametrize("settings", [{}, COLOURLESS], ids=["default", "colourless"])
def test_operator_checks(settings: dict[str, object], make_batch: Callable[..., Batch]) -> None:
    rules = PlanRules(mask_id=103, ordinary_first=104, ordinary_last=999, **settings)
    torch.library.opcheck(torch.ops.kaleido_fast.plan.default, operator_arguments(make_batch(16), rules))


def test_compiled_plan_is_the_same(make_batch: Callable[..., Batch], golden_rules: PlanRules) -> None:
    compiled = torch.compile(lambda batch: plan(**batch, rules=golden_rules), fullgraph=True, dynamic=True)
    for size in (16, 48):
        batch = make_batch(size, seed=size)
        assert_equal(compiled(batch), plan(**batch, rules=golden_rules)._asdict())


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("tokens", lambda x: x[:15], r"tokens \(15, 24\) torch.int32 must be \(B, T\) int32, B a multiple"),
        ("tokens", lambda x: x.long(), r"tokens \(16, 24\) torch.int64 must be"),
        ("tokens", lambda x: x[:, :0], r"tokens \(16, 0\) torch.int32 must be"),
        ("tokens", lambda x: x[0], r"tokens \(24,\) torch.int32 must be"),
        ("seed", lambda x: x[None], r"seed \(1,\) torch.int64 must be \(\) torch.int64; use torch.tensor"),
        ("seed", lambda x: x.int(), r"seed \(\) torch.int32 must be"),
        ("lengths", lambda x: x.long(), r"lengths \(16,\) torch.int64 must be \(16,\) torch.int32; it goes"),
        ("alignment", lambda x: x[:, 1:], r"alignment \(16, 23\) torch.int64 must be \(16, 24\) torch.int64"),
        ("keys", lambda x: x[1:], r"keys \(15,\) torch.int64 must be \(16,\)"),
        ("image_products", lambda x: x.int(), "image_products .* torch.int32 must be .* torch.int64"),
        ("text_products", lambda x: x.int(), "text_products .* torch.int32 must be .* torch.int64"),
        ("present", lambda x: x.int(), "present .* torch.int32 must be .* torch.bool"),
        ("match", lambda x: x.int(), "match .* torch.int32 must be .* torch.bool"),
        ("epochs", lambda x: x[0], r"epochs \(\) torch.int64 must be \(16,\)"),
    ],
)
def test_wrong_tensors_are_named(
    name: str, change: Callable[[Tensor], Tensor], message: str, make_batch: Callable[..., Batch],
    golden_rules: PlanRules,
) -> None:
    batch = make_batch(16)
    with pytest.raises(ValueError, match=f"plan: {message}"):
        plan(**batch | {name: change(batch[name])}, rules=golden_rules)
