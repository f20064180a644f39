"""The panels of the kaleido tasks show what the operations gave: the right patch at every place."""

import pytest
import torch

from kaleido_fast.kernels.plan import plan
from kaleido_fast.kernels.plan_outputs import Plan
from kaleido_fast.kernels.plan_rules import PERMUTATIONS, PlanRules
from kaleido_fast.model.kaleido_tasks import TASKS
from kaleido_fast.model.settings import KaleidoSettings
from kaleido_fast.report.kaleido_panels import TaskPanels

KALEIDO = KaleidoSettings(patch_size=12)
SIZE = 60


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randint(
        0, 256, (16, SIZE, SIZE, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )


@pytest.fixture(scope="module")
def drawn() -> Plan:
    tokens = torch.full((16, 12), 9, dtype=torch.int32)
    yes = torch.ones(16, dtype=torch.bool)
    ranks = torch.arange(16)
    return plan(
        tokens,
        torch.full((16,), 8, dtype=torch.int32),
        torch.zeros(16, 12, dtype=torch.int64),
        77777777777 * ranks,
        ranks,
        ranks,
        yes,
        yes,
        torch.tensor(1),
        torch.zeros(16, dtype=torch.int64),
        PlanRules(4, 5, 90),
    )


@pytest.mark.parametrize("row", [0, 5, 11])
def test_panels_show_what_the_plan_says(images: torch.Tensor, drawn: Plan, row: int) -> None:
    pixels = TaskPanels(images, drawn, KALEIDO)
    clean = {task.name: pixels.clean(row, task).patches for task in TASKS}
    changed = {task.name: pixels.changed(row, task) for task in TASKS}
    turned = torch.rot90(clean["rotation"][0], int(drawn.rotation[row]), dims=(0, 1))
    torch.testing.assert_close(changed["rotation"].patches[0], turned, atol=1e-5, rtol=0)
    order = PERMUTATIONS[int(drawn.permutation[row])]
    for slot, place in enumerate(order):
        assert torch.equal(changed["jigsaw"].patches[slot], clean["jigsaw"][place])
    assert changed["jigsaw"].numbers == [place + 1 for place in order]
    hidden, donor = int(drawn.camouflage_slot[row]), int(drawn.donor[row])
    shown = pixels.clean(donor, TASKS[2]).patches[int(drawn.donor_slot[row])]
    assert torch.equal(changed["camouflage"].patches[hidden], shown)
    assert changed["camouflage"].marked == {hidden}
    for slot in drawn.grey_slots[row].tolist():
        luma = clean["grey_to_color"][slot] @ torch.tensor([0.299, 0.587, 0.114])
        torch.testing.assert_close(
            changed["grey_to_color"].patches[slot], luma[..., None].expand(-1, -1, 3), atol=1e-5, rtol=0
        )
    blank = {slot for slot, patch in enumerate(changed["blank_to_color"].patches) if patch is None}
    assert blank == changed["blank_to_color"].marked == set(drawn.blank_slots[row].tolist())


def test_clean_patches_are_the_photograph(images: torch.Tensor, drawn: Plan) -> None:
    """Level 5's cells are 12 pixels wide, as the patches: no resize, the very pixels."""
    patches = TaskPanels(images, drawn, KALEIDO).clean(3, TASKS[4]).patches
    torch.testing.assert_close(patches[7], images[3, 12:24, 24:36].float() / 255, atol=1e-5, rtol=0)
