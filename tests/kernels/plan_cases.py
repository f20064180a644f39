"""Rules that every implementation of plan is tested under."""

from collections.abc import Callable

import torch
from torch import Tensor

from kaleido_fast.kernels.plan import plan
from kaleido_fast.kernels.plan_outputs import Plan, PlanInputs
from kaleido_fast.kernels.plan_rules import IGNORED, PlanRules
from kaleido_fast.kernels.tasks import TaskRule

IDS = {"mask_id": 103, "ordinary_first": 104, "ordinary_last": 999}
ROTATION, JIGSAW, CAMOUFLAGE = TaskRule(1, "turn"), TaskRule(2, "permute"), TaskRule(3, "swap", 1)
GREY, BLANK = TaskRule(4, "grey", 2), TaskRule(5, "blank", 3)
FIVE = (ROTATION, JIGSAW, CAMOUFLAGE, GREY, BLANK)  # the paper's


def without(*left_out: TaskRule) -> dict[str, object]:
    return {"tasks": tuple(task for task in FIVE if task not in left_out)}


RULES = {
    "default": {},
    "random masking": {"guided": False},
    "few tokens": {"max_masked_tokens": 2},
    "no tokens": {"max_masked_tokens": 0},
    "more slots than tokens": {"max_masked_tokens": 40},
    "many patches": {"tasks": (ROTATION, JIGSAW, CAMOUFLAGE, TaskRule(4, "grey", 16), TaskRule(5, "blank", 24))},
    "no rotation": without(ROTATION),
    "no jigsaw": without(JIGSAW),
    "no camouflage": without(CAMOUFLAGE),
    "no grey": without(GREY),
    "no blank": without(BLANK),
    "all tasks off": {"tasks": ()},
    "fixed scale": {"tasks": (TaskRule(8, "blank", 6),), "grids": (8,)},
    "levels in another order": {"grids": (5, 3, 1, 4, 2)},
    "level without a task": {"tasks": (CAMOUFLAGE,), "grids": (3, 6)},
    "no levels": {"tasks": (), "grids": ()},
    "two of blank, grey": {"tasks": (TaskRule(1, "blank", 1), TaskRule(2, "grey", 3), TaskRule(3, "blank", 2),
                                     TaskRule(4, "grey", 4), TaskRule(5, "blank", 5))},
    "two swaps, two turns": {"tasks": (TaskRule(5, "swap", 1, draw=3), TaskRule(4, "turn", draw=2), ROTATION,
                                       TaskRule(2, "swap", 1), TaskRule(3, "grey", 1))},
}


def plan_of(batch: dict[str, Tensor], rules: PlanRules, draw: Callable[..., Plan] = plan) -> Plan:
    """The plan of a batch of the fixtures in conftest.py."""
    return draw(PlanInputs(**{name: batch[name] for name in PlanInputs._fields}), batch["seed"], rules)


def rules_of(**settings: object) -> PlanRules:
    """The paper's tasks where `settings` name no others."""
    return PlanRules(**IDS | {"tasks": FIVE} | settings)


def as_plan(outputs: dict[str, Tensor]) -> Plan:
    """The plan that tests/golden/plan.npz holds by its own names."""
    ignored = torch.full_like(outputs["rotation"], IGNORED)
    labels = (outputs["rotation"], outputs["permutation"], outputs["camouflage_label"], ignored, ignored)
    slots = (outputs["camouflage_slot"][:, None], outputs["grey_slots"], outputs["blank_slots"])
    others = {name: outputs[name] for name in Plan._fields if name in outputs}
    return Plan(labels=torch.stack(labels, dim=1), slots=torch.cat(slots, dim=1), donors=outputs["donor"][:, None],
                donor_slots=outputs["donor_slot"][:, None], tasks=FIVE, **others)
