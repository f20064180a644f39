"""plan: the golden file bit for bit, however it is batched; the operator; errors."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kaleido_fast.kernels.plan import clean_plan, operator_arguments
from kaleido_fast.kernels.plan_outputs import Plan, PlanInputs
from kaleido_fast.kernels.plan_rules import GROUP, IGNORED, PlanRules
from kaleido_fast.kernels.source import clean_source
from kaleido_fast.kernels.tasks import TaskRule
from tests.kernels.plan_cases import FIVE, plan_of, rules_of

Batch = dict[str, Tensor]


def take(batch: Batch, rows: Tensor) -> Batch:
    return {name: tensor[rows] if tensor.dim() else tensor for name, tensor in batch.items()}


def rows_of_groups(groups: Tensor) -> Tensor:
    return (groups[:, None] * GROUP + torch.arange(GROUP)).flatten()


def moved(outputs: Plan, rows: Tensor, num_rows: int) -> Plan:
    """What `plan` must give for `rows` of a batch: donors and sources follow the rows to their new places."""
    taken, place = outputs.map(lambda x: x[rows]), torch.full((len(outputs.donors),), -1)
    place[rows] = torch.arange(len(rows))

    def follow(old: Tensor, size: int) -> Tensor:
        new = place[old.long().clamp(min=0) // size] * size + old.clamp(min=0) % size
        return torch.where(old < 0, old, new).int()

    return taken._replace(donors=follow(taken.donors, 1), source=follow(taken.source, num_rows))


def assert_equal(drawn: Plan, expected: Plan) -> None:
    assert drawn.tasks == expected.tasks
    for name, value, want in zip(Plan._fields[:-1], drawn.tensors, expected.tensors, strict=True):
        assert value.dtype == torch.int32 and value.shape == want.shape, name
        assert torch.equal(value, want), name


def test_golden_file(golden_batch: Batch, golden_outputs: Plan, golden_rules: PlanRules) -> None:
    assert_equal(plan_of(golden_batch, golden_rules), golden_outputs)


@pytest.mark.parametrize("groups", [[0], [17], [47], range(3, 9), range(47, -1, -1)], ids=str)
def test_golden_groups_in_any_batch(
    groups: list[int], golden_batch: Batch, golden_outputs: Plan, golden_rules: PlanRules
) -> None:
    rows = rows_of_groups(torch.tensor(groups))
    drawn = plan_of(take(golden_batch, rows), golden_rules)
    assert_equal(drawn, moved(golden_outputs, rows, golden_rules.num_rows))


def test_golden_groups_shuffled(golden_batch: Batch, golden_outputs: Plan, golden_rules: PlanRules) -> None:
    rows = rows_of_groups(torch.randperm(48, generator=torch.Generator().manual_seed(1)))
    drawn = plan_of(take(golden_batch, rows), golden_rules)
    assert_equal(drawn, moved(golden_outputs, rows, golden_rules.num_rows))


def test_group_of_holes_changes_nothing_for_the_rest(
    golden_batch: Batch, golden_outputs: Plan, golden_rules: PlanRules
) -> None:
    rows = rows_of_groups(torch.tensor([5, 6, 7]))
    batch = take(golden_batch, rows)
    batch["present"][GROUP : 2 * GROUP] = False
    kept = torch.cat([torch.arange(GROUP), torch.arange(2 * GROUP, 3 * GROUP)])
    expected = moved(golden_outputs, rows, golden_rules.num_rows)
    drawn = plan_of(batch, golden_rules)
    assert_equal(drawn.map(lambda x: x[kept]), expected.map(lambda x: x[kept]))


def test_non_contiguous_arguments(
    golden_batch: Batch, golden_outputs: Plan, golden_rules: PlanRules
) -> None:
    strided = {name: torch.stack([x, x], dim=-1)[..., 0] for name, x in golden_batch.items()}
    assert not strided["tokens"].is_contiguous()
    assert_equal(plan_of(strided, golden_rules), golden_outputs)


def test_what_follows_sep_is_free(
    golden_batch: Batch, golden_outputs: Plan, golden_rules: PlanRules
) -> None:
    """Ids and alignment bits on specials and padding change no draw, and those ids stay as they are."""
    place = torch.arange(64)
    inside = (place >= 1) & (place < golden_batch["lengths"][:, None] - 1)
    noise = golden_batch | {
        "tokens": torch.where(inside, golden_batch["tokens"], 7),
        "alignment": torch.where(inside, golden_batch["alignment"], -1),
    }
    masked = torch.where(inside, golden_outputs.masked_tokens, 7)
    assert_equal(plan_of(noise, golden_rules), golden_outputs._replace(masked_tokens=masked))


@pytest.mark.parametrize("changed", ["seed", "epochs", "keys"])
def test_seed_epoch_and_key_change_every_draw(
    changed: str, golden_batch: Batch, golden_outputs: Plan, golden_rules: PlanRules
) -> None:
    drawn = plan_of(golden_batch | {changed: golden_batch[changed] ^ 1}, golden_rules)
    for name in set(Plan._fields) - {"num_masked", "tasks"}:
        assert not torch.equal(getattr(drawn, name), getattr(golden_outputs, name)), name
    answered = golden_outputs.labels[0] != IGNORED
    assert (drawn.labels != golden_outputs.labels).any(dim=0)[answered].all()
    assert (drawn.slots != golden_outputs.slots).any(dim=0).all()


def test_plan_is_not_told_label_or_text_product() -> None:
    """Mismatched samples cannot be treated otherwise than matched ones."""
    assert PlanInputs._fields == ("tokens", "lengths", "alignment", "keys", "products", "present", "epochs")


def test_empty_batch(golden_batch: Batch, golden_rules: PlanRules) -> None:
    drawn = plan_of(take(golden_batch, torch.arange(0)), golden_rules)
    assert drawn.source.shape == (0, 55) and drawn.masked_tokens.shape == (0, 64)


@pytest.mark.parametrize("grids", [(1, 2, 3, 4, 5), (8,), ()])
def test_clean_plan_moves_nothing(grids: tuple[int, ...]) -> None:
    tokens = torch.randint(0, 999, (5, 7), dtype=torch.int32, generator=torch.Generator().manual_seed(0))
    clean = clean_plan(tokens, grids)
    assert torch.equal(clean.masked_tokens, tokens)
    assert torch.equal(clean.source, clean_source(5, grids, 0, tokens.device).int())
    assert all(x.dtype == torch.int32 and len(x) == 5 for x in clean.tensors) and clean.tasks == ()
    for name in ("labels", "slots", "donors", "donor_slots", "masked_positions", "masked_labels"):
        assert getattr(clean, name).shape == (5, 0), name
    assert (clean.num_masked == 0).all()


def test_parts_are_the_tasks_columns(golden_outputs: Plan) -> None:
    for column, (task, first) in enumerate(zip(FIVE, (0, 0, 0, 1, 3), strict=True)):
        part = golden_outputs.part(task)
        assert torch.equal(part.label, golden_outputs.labels[:, column])
        assert torch.equal(part.slots, golden_outputs.slots[:, first : first + task.num_slots])
    with pytest.raises(ValueError, match="plan: task=blank on grid 5 of 2 slots is not one that it was drawn for, which are "
                                         "turn on grid 1, permute on .* of 3 slots; give one of these, or draw it with that "
                                         "task"):
        golden_outputs.part(TaskRule(5, "blank", 2))


COLOURLESS = {"grids": (1, 2, 3), "tasks": FIVE[:3], "max_masked_tokens": 0}


@pytest.mark.parametrize("settings", [{}, COLOURLESS], ids=["default", "colourless"])
def test_operator_checks(settings: dict[str, object], make_batch: Callable[..., Batch]) -> None:
    arguments = plan_of(make_batch(16), rules_of(**settings), operator_arguments)
    torch.library.opcheck(torch.ops.kaleido_fast.plan.default, arguments)


def test_compiled_plan_is_the_same(make_batch: Callable[..., Batch], golden_rules: PlanRules) -> None:
    compiled = torch.compile(lambda batch: plan_of(batch, golden_rules), fullgraph=True, dynamic=True)
    for size in (16, 48):
        batch = make_batch(size, seed=size)
        assert_equal(compiled(batch), plan_of(batch, golden_rules))


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
        ("products", lambda x: x.int(), "products .* torch.int32 must be .* torch.int64"),
        ("present", lambda x: x.int(), "present .* torch.int32 must be .* torch.bool"),
        ("epochs", lambda x: x[0], r"epochs \(\) torch.int64 must be \(16,\)"),
    ],
)
def test_wrong_tensors_are_named(
    name: str, change: Callable[[Tensor], Tensor], message: str, make_batch: Callable[..., Batch],
    golden_rules: PlanRules,
) -> None:
    batch = make_batch(16)
    with pytest.raises(ValueError, match=f"plan: {message}"):
        plan_of(batch | {name: change(batch[name])}, golden_rules)
