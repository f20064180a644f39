"""plan against a twin that follows SPEC 3 and 6 one sample at a time in Python integers, for many rules."""

import itertools
from collections.abc import Callable, Iterable, Iterator

import pytest
import torch
from torch import Tensor

from kaleido_fast.kernels.plan_outputs import Plan
from kaleido_fast.kernels.plan_rules import PlanRules
from tests.kernels.plan_cases import RULES, plan_of, rules_of

Batch = dict[str, Tensor]
WORD = 2**32 - 1


def philox(key: int, counter: list[int]) -> list[int]:
    k0, k1, (c0, c1, c2, c3) = key & WORD, key >> 32 & WORD, counter
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * c0, 2**32)
        high1, low1 = divmod(0xCD9E8D57 * c2, 2**32)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) & WORD, (k1 + 0xBB67AE85) & WORD
    return [c0, c1, c2, c3]


class Twin:
    """One sample of a batch; `row` is its row there."""

    def __init__(self, batch: Batch, row: int, rules: PlanRules) -> None:
        self.batch, self.row, self.rules = batch, row, rules
        self.present = bool(batch["present"][row])
        self.maskable = list(range(1, int(batch["lengths"][row]) - 1)) if self.present else []
        self.offsets = dict(zip(rules.grids, itertools.accumulate((n * n for n in rules.grids), initial=0), strict=False))
        self.budgets = {task.grid: task.num_slots for task in rules.tasks}
        num = len(self.maskable)
        self.token_budget = min(max(1, (3 * num + 10) // 20), rules.max_masked_tokens) if num else 0

    def words(self, stream: int, index: int) -> list[int]:
        key, epoch = int(self.batch["keys"][self.row]), int(self.batch["epochs"][self.row])
        return philox(int(self.batch["seed"]), [index, epoch * 16 + stream, key & WORD, key >> 32 & WORD])

    def pairs(self) -> Iterator[tuple[int, int, int, int]]:
        """grid, token, position, side bit, in walking order."""
        found = []
        for t, (grid, offset) in itertools.product(self.maskable, self.offsets.items()):
            for p in range(offset, offset + grid * grid) if grid >= 3 else ():
                if int(self.batch["alignment"][self.row, t]) >> p & 1:
                    words = self.words(0, t * 64 + p)
                    found.append((-words[0], t, p, grid, words[1] >> 31))
        yield from ((grid, t, p, side) for _, t, p, grid, side in sorted(found))

    def choose(self) -> tuple[list[int], dict[int, list[int]]]:
        tokens: list[int] = []
        patches: dict[int, list[int]] = {grid: [] for grid in self.offsets}
        passed: set[tuple[str, int]] = set()
        for grid, t, p, side in self.pairs() if self.rules.guided else ():
            if t in tokens or p in patches[grid] or passed & {("token", t), ("patch", p)}:
                continue
            token_fits = len(tokens) < self.token_budget
            patch_fits = len(patches[grid]) < self.budgets.get(grid, 0)
            if token_fits and (side or not patch_fits):
                tokens.append(t)
                passed.add(("patch", p))
            elif patch_fits:
                patches[grid].append(p)
                passed.add(("token", t))
        rest = sorted(self.maskable, key=lambda t: (("token", t) in passed, -self.words(1, t)[0], t))
        tokens += [t for t in rest if t not in tokens][: self.token_budget - len(tokens)]
        for grid, offset in self.offsets.items():
            cells = range(offset, offset + grid * grid)
            rest = sorted(cells, key=lambda p: (("patch", p) in passed, -self.words(2, p)[0], p))
            room = self.budgets.get(grid, 0) - len(patches[grid])
            patches[grid] += [p for p in rest if p not in patches[grid]][:room]
        slots = {grid: sorted(p - self.offsets[grid] for p in taken) for grid, taken in patches.items()}
        return sorted(tokens), slots

    def find_donor(self, start: int) -> int:
        first = self.row // 16 * 16
        for member in ((start + step) % 16 for step in range(16)):
            other = first + member
            products = self.batch["products"]
            if self.batch["present"][other] and products[other] != products[self.row]:
                return other
        return -1

    def outputs(self) -> dict[str, int | list[int]]:
        rules = self.rules
        size = rules.num_positions + sum(task.num_slots for task in rules.tasks if task.effect == "grey")
        source = [self.row * size + p for p in range(rules.num_positions)]
        tokens, slots = self.choose() if self.present else ([], {})
        labels, all_slots, donors, donor_slots, next_grey = [], [], [], [], rules.num_positions
        for task in rules.tasks:
            first, words = self.offsets[task.grid], self.words(3, task.draw)
            taken = slots[task.grid] if self.present else [-1] * task.num_slots
            label, donor, patch = -100, -1, -1
            if task.effect == "turn":
                label = words[0] * 4 >> 32 if self.present else 0
            elif task.effect == "permute":
                label = words[1] * 24 >> 32 if self.present else 0
                if self.present:
                    for slot, shown in enumerate(sorted(itertools.permutations(range(4)))[label]):
                        source[first + slot] = self.row * size + first + shown
            elif task.effect == "swap":
                donor = self.find_donor(words[2] * 16 >> 32) if self.present else -1
                if donor >= 0:
                    patch, label = words[3] * task.grid**2 >> 32, taken[0]
                    source[first + taken[0]] = donor * size + first + patch
                donors, donor_slots = [*donors, donor], [*donor_slots, patch]
            for number, slot in enumerate(taken if self.present else []):
                if task.effect == "grey":
                    source[first + slot] = self.row * size + next_grey + number
                elif task.effect == "blank":
                    source[first + slot] = -1
            next_grey += task.num_slots if task.effect == "grey" else 0
            labels, all_slots = [*labels, label], all_slots + (taken if task.num_slots else [])
        return {"labels": labels, "slots": all_slots, "donors": donors, "donor_slots": donor_slots,
                "source": source} | self.masking(tokens)

    def masking(self, masked: list[int]) -> dict[str, int | list[int]]:
        ids = self.batch["tokens"][self.row].tolist()
        labels = [ids[t] for t in masked]
        for t in masked:
            _, action, ordinary, _ = self.words(1, t)
            if action * 10 >> 32 < 8:
                ids[t] = self.rules.mask_id
            elif action * 10 >> 32 == 8:
                ids[t] = self.rules.ordinary_first + (
                    ordinary * (self.rules.ordinary_last - self.rules.ordinary_first + 1) >> 32)
        room = self.rules.max_masked_tokens - len(masked)
        return {"masked_tokens": ids, "masked_positions": masked + [-1] * room,
                "masked_labels": labels + [-100] * room, "num_masked": len(masked)}


def assert_is_twin(batch: Batch, rules: PlanRules) -> None:
    assert_rows_are_twins(plan_of(batch, rules), batch, rules, range(len(batch["tokens"])))


def assert_rows_are_twins(drawn: Plan, batch: Batch, rules: PlanRules, rows: Iterable[int]) -> None:
    for row in rows:
        expected = Twin(batch, row, rules).outputs()
        assert [*expected, "tasks"] == list(Plan._fields)
        for (name, value), tensor in zip(expected.items(), drawn.tensors, strict=True):
            assert tensor[row].tolist() == value, (row, name)


@pytest.mark.parametrize("settings", RULES.values(), ids=RULES)
@pytest.mark.parametrize("bits", [0, 0.03, 0.3], ids=["no alignment", "sparse", "dense"])
def test_plan_equals_its_twin(
    settings: dict[str, object], bits: float, make_batch: Callable[..., Batch]
) -> None:
    """Ragged lengths, holes, equal products, bits on every level, the sign bit included."""
    batch = make_batch(32, num_tokens=20, bits=bits, seed=len(settings) + int(100 * bits))
    batch["present"][torch.tensor([0, 5, 20])] = False
    batch["alignment"][7, 3] = -1
    batch["lengths"][7] = 20
    assert_is_twin(batch, rules_of(**settings))


def test_twin_equals_golden(golden_batch: Batch, golden_outputs: Plan, golden_rules: PlanRules) -> None:
    """The twin itself, held against the file of two independent implementations."""
    assert_rows_are_twins(golden_outputs, golden_batch, golden_rules, range(0, 768, 37))
