"""What a task is to the operators: its classes and slots, what means nothing, its way through an operator's schema."""

import pytest

from kaleido_fast.kernels.tasks import PERMUTATIONS, TaskRule, as_lists, first_slots, from_lists, task_of_grid, total_greyed
from tests.kernels.plan_cases import BLANK, FIVE, RULES


def test_classes_and_slots_of_the_papers_tasks() -> None:
    assert [task.num_classes for task in FIVE] == [4, 24, 9, 0, 0]
    assert first_slots(FIVE) == (0, 0, 0, 1, 3) and first_slots(()) == ()
    assert total_greyed(FIVE) == 2 and total_greyed(RULES["two of blank, grey"]["tasks"]) == 7
    assert task_of_grid(FIVE, 5) == BLANK and task_of_grid(FIVE, 6) is None


def test_permutations_are_lexicographic() -> None:
    assert len(PERMUTATIONS) == 24 and list(PERMUTATIONS) == sorted(set(PERMUTATIONS))
    assert PERMUTATIONS[0] == (0, 1, 2, 3)


@pytest.mark.parametrize("settings", RULES.values(), ids=RULES)
def test_lists_and_back(settings: dict[str, object]) -> None:
    tasks = settings.get("tasks", FIVE)
    assert from_lists(*as_lists(tasks)) == tasks


@pytest.mark.parametrize(("task", "message"), [
    ((3, "swop", 1), "effect='swop' must be one of turn, permute, swap, grey, blank"),
    ((0, "turn"), "grid=0 must be 1 or more"),
    ((1, "turn", 1), "turn on grid 1 takes 1 slots, must take 0"),
    ((3, "permute"), "a permutation of grid 3 must be of grid 2, whose 24 permutations can be told apart"),
    ((1, "swap", 1), "a swap on grid 1 must be on grid 2 or more: of one slot there is nothing to find"),
    ((3, "swap", 2), "swap on grid 3 takes 2 slots, must take 1"),
    ((4, "grey", 17), r"grey on grid 4 takes 17 slots, must take 1\.\.16"),
    ((5, "blank"), r"blank on grid 5 takes 0 slots, must take 1\.\.25"),
    ((1, "turn", 0, 1), "draw=1 must be 0 or from 2 on; 1 is the text's"),
    ((1, "turn", 0, -2), "draw=-2 must be 0 or from 2 on"),
])
def test_what_means_nothing_is_refused(task: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=f"^task: {message}"):
        TaskRule(*task)
