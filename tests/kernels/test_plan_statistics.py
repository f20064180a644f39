"""plan's draws: each is distributed as SPEC 6 says, and together they say nothing about the ITM label.

Seeds are fixed, so a p-value is what it is; the bound asks for a fault, not for luck.
"""

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot

from kaleido_fast.kernels.philox import SAMPLE, draw
from kaleido_fast.kernels.plan_outputs import Plan
from kaleido_fast.kernels.plan_rules import NONE, PlanRules
from kaleido_fast.kernels.tasks import TaskRule
from tests.kernels.plan_cases import BLANK, CAMOUFLAGE, GREY, JIGSAW, ROTATION, plan_of, rules_of, without

stats = pytest.importorskip("scipy.stats", reason="statistics need scipy")

Batch = dict[str, Tensor]
UNK, FIRST, LAST = 100, 104, 203
RULES = rules_of(ordinary_last=LAST)
NEVER_TURNED = rules_of(ordinary_last=LAST, **without(ROTATION))
SMALLEST_P = 1e-4


def assert_distributed(values: Tensor, num: int, shares: Tensor | None = None) -> None:
    """`values` in 0..num-1 follow `shares`, uniform without."""
    counts = values.flatten().long().bincount(minlength=num).numpy()
    assert len(counts) == num
    expected = None if shares is None else (shares / shares.sum() * counts.sum()).numpy()
    assert stats.chisquare(counts, expected).pvalue > SMALLEST_P, counts


def alike(num_samples: int, num_tokens: int) -> Batch:
    """Samples that differ in key and product alone, keys in sequence, texts of [UNK]."""
    numbers, everywhere = torch.arange(num_samples), torch.ones(num_samples, dtype=torch.bool)
    return {
        "tokens": torch.full((num_samples, num_tokens), UNK, dtype=torch.int32),
        "lengths": torch.full((num_samples,), num_tokens, dtype=torch.int32),
        "alignment": torch.zeros(num_samples, num_tokens, dtype=torch.int64), "keys": numbers,
        "products": numbers, "present": everywhere, "seed": torch.tensor(11), "epochs": torch.zeros_like(numbers),
    }


@pytest.fixture(scope="module")
def drawn() -> Plan:
    """32,768 samples with neighbouring keys in one epoch, all of their own product, without alignment."""
    return plan_of(alike(32768, 12), RULES)


NUMBERS: dict[str, tuple[Callable[[Plan], Tensor], int]] = {  # one a sample, and how many values it has
    "rotation": (lambda drawn: drawn.part(ROTATION).label, 4), "jigsaw": (lambda drawn: drawn.part(JIGSAW).label, 24),
    "camouflage slot": (lambda drawn: drawn.part(CAMOUFLAGE).slots[:, 0], 9),
    "donor slot": (lambda drawn: drawn.donor_slots[:, 0], 9),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_one_number_a_sample_is_uniform(name: str, drawn: Plan) -> None:
    number, count = NUMBERS[name]
    assert_distributed(number(drawn), count)


@pytest.mark.parametrize("task", [GREY, BLANK], ids=lambda task: task.effect)
def test_every_set_of_slots_is_as_likely(task: TaskRule, drawn: Plan) -> None:
    slots, num = drawn.part(task).slots.long(), task.grid**2
    sets = torch.combinations(torch.arange(num), task.num_slots)
    base = num ** torch.arange(task.num_slots).flip(0)  # a set as one number, in the order of `sets`
    numbers = torch.searchsorted(sets @ base, slots @ base)
    assert torch.equal(sets[numbers], slots)
    assert_distributed(numbers, len(sets))


def test_donor_follows_the_drawn_start(drawn: Plan) -> None:
    """From a uniform start the sample itself is skipped: the member after it comes twice as often."""
    steps = (drawn.donors[:, 0].long() - torch.arange(len(drawn.donors))) % 16
    assert int(steps.min()) == 1
    shares = torch.ones(15, dtype=torch.float64)
    shares[0] = 2
    assert_distributed(steps - 1, 15, shares)


def test_masked_places_and_actions(drawn: Plan) -> None:
    """Places uniform; 80 % [MASK], 10 % a random ordinary id, 10 % unchanged, whatever the place."""
    chosen = drawn.masked_positions[:, :2].long()  # maskable 10: budget 2
    assert (drawn.num_masked == 2).all()
    places, base = torch.combinations(torch.arange(1, 11)), torch.tensor([11, 1])
    assert_distributed(torch.searchsorted(places @ base, chosen @ base), len(places))
    ids = drawn.masked_tokens.gather(1, chosen)
    action = torch.where(ids == RULES.mask_id, 0, torch.where(ids == UNK, 2, 1))
    assert_distributed(action, 3, torch.tensor([8, 1, 1], dtype=torch.float64))
    assert_distributed(ids[action == 1] - FIRST, LAST - FIRST + 1)
    table = (chosen * 3 + action).flatten().bincount(minlength=33).view(11, 3)[1:]
    assert stats.chi2_contingency(table.numpy()).pvalue > SMALLEST_P


def test_draws_of_a_sample_are_independent(drawn: Plan) -> None:
    columns = {name: number(drawn) for name, (number, _) in NUMBERS.items()} | {
        "grey": drawn.part(GREY).slots[:, 0], "blank": drawn.part(BLANK).slots[:, 0],
        "place": drawn.masked_positions[:, 0], "neighbour's rotation": drawn.part(ROTATION).label.roll(1),
    }
    for (one, a), (other, b) in itertools.combinations(columns.items(), 2):
        pairs = (a.long() - a.min()) * 64 + (b.long() - b.min())
        table = pairs.bincount(minlength=64 * 64).view(-1, 64)
        table = table[table.sum(dim=1) > 300][:, table.sum(dim=0) > 300]
        assert stats.chi2_contingency(table.numpy()).pvalue > SMALLEST_P, (one, other)


def test_sides_and_order_of_pairs() -> None:
    """Three pairs of a token and a level-4 patch, room for one token and two patches: all alike."""
    batch = alike(16384, 8)  # maskable 6: budget 1
    batch["alignment"][:, 1:4] = 1 << torch.tensor([15, 20, 25])
    drawn = plan_of(batch, RULES)
    token = drawn.masked_positions[:, 0].long()
    assert_distributed(token[token <= 3] - 1, 3)
    assert (token <= 3).all()  # after two patches the third pair falls to its token
    greyed = (drawn.part(GREY).slots[:, :, None] + 14 == torch.tensor([15, 20, 25])).any(dim=1)
    assert torch.equal(greyed, token[:, None] != torch.tensor([1, 2, 3]))


@pytest.fixture(scope="module")
def labelled(make_batch: Callable[..., Batch]) -> Batch:
    """Labels drawn as SPEC 6 says, a mismatched sample with another's text; words go with the centre."""
    batch = make_batch(16384, num_tokens=24, bits=0.2)
    batch["alignment"] &= sum(1 << 30 + 5 * row + column for row in range(1, 4) for column in range(1, 4))
    mismatched = draw(batch["seed"], batch["epochs"], batch["keys"], SAMPLE, 1)[0] >= 2**31
    for name in ("tokens", "lengths", "alignment"):
        own = batch[name]
        batch[name] = torch.where(mismatched.view(-1, *[1] * (own.dim() - 1)), own.roll(1, 0), own)
    return batch | {"match": ~mismatched}


def features(drawn: Plan) -> Tensor:
    """(B, n) fp32: all that a plan says, one-hot."""
    numbers = [
        *((number(drawn), count) for number, count in NUMBERS.values()), (drawn.donors[:, 0] % 16, 16), (drawn.num_masked, 11),
        *((slots, task.grid**2) for task in (GREY, BLANK) for slots in drawn.part(task).slots.T),
    ]
    places = (drawn.masked_positions[:, :, None] == torch.arange(24)).any(dim=1)
    columns = [one_hot(column.long(), num) for column, num in numbers]
    labels = (drawn.masked_labels.float() / 1000).clamp(min=-1)
    unmoved = drawn.source == torch.arange(len(drawn.source))[:, None] * 57 + torch.arange(55)
    replaced = (drawn.masked_tokens == RULES.mask_id).sum(dim=1, keepdim=True)
    lonely = drawn.donors == NONE
    return torch.cat([*columns, places, labels, unmoved, replaced, lonely], dim=1).float()


def accuracy_of_a_classifier(inputs: Tensor, labels: Tensor) -> float:
    """Held-out accuracy of a logistic regression fitted to the first half."""
    half = len(inputs) // 2
    inputs = (inputs - inputs[:half].mean(dim=0)) / inputs[:half].std(dim=0).clamp(min=1e-3)
    weight, bias = torch.zeros(inputs.shape[1], requires_grad=True), torch.zeros((), requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=30, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = binary_cross_entropy_with_logits(inputs[:half] @ weight + bias, labels[:half].float())
        value = value + 1e-3 * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    guessed = inputs[half:] @ weight.detach() + bias.detach() > 0
    return float((guessed == labels[half:]).float().mean())


def test_plan_alone_does_not_give_the_label_away(labelled: Batch) -> None:
    accuracy = accuracy_of_a_classifier(features(plan_of(labelled, RULES)), labelled["match"])
    assert abs(accuracy - 0.5) < 0.02  # 3.6 standard deviations of 8,192 held-out samples


@pytest.mark.parametrize(
    ("inputs", "rules"),
    [({"alignment": 0}, RULES), ({"lengths": 9}, RULES), ({}, NEVER_TURNED), ({}, replace(RULES, guided=False))],
    ids=["no alignment", "budget of another text", "never turned", "masked at random"],
)
def test_the_classifier_sees_plans_that_know_the_label(
    inputs: dict[str, int], rules: PlanRules, labelled: Batch
) -> None:
    """Negative control: mismatched samples treated otherwise than matched ones are found."""
    other = labelled | {name: torch.full_like(labelled[name], value) for name, value in inputs.items()}
    matched, mismatched = plan_of(labelled, RULES), plan_of(other, rules)
    if rules == NEVER_TURNED:  # its level as it is, its label no turn
        mismatched = mismatched._replace(labels=torch.nn.functional.pad(mismatched.labels, (1, 0)))
    match = labelled["match"]
    mixed = Plan(*(torch.where(match.view(-1, *[1] * (a.dim() - 1)), a, b)
                   for a, b in zip(matched.tensors, mismatched.tensors, strict=True)), matched.tasks)
    assert accuracy_of_a_classifier(features(mixed), match) > 0.55
