"""The panels of the kaleido tasks show what the operations gave: the right patch at every place."""

import pytest
import torch

from kaleido_fast.kernels.plan import plan
from kaleido_fast.kernels.plan_outputs import Plan, PlanInputs
from kaleido_fast.kernels.tasks import PERMUTATIONS
from kaleido_fast.model.kaleido_tasks import plan_rules
from kaleido_fast.model.settings import KaleidoSettings
from kaleido_fast.model.task_table import PAPERS, TASKS
from kaleido_fast.report.kaleido_panels import TaskPanels, caption

KALEIDO = KaleidoSettings(patch_size=12)
SIZE = 60


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randint(
        0, 256, (16, SIZE, SIZE, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )


@pytest.fixture(scope="module")
def drawn() -> Plan:
    ranks = torch.arange(16)
    inputs = PlanInputs(
        tokens=torch.full((16, 12), 9, dtype=torch.int32),
        lengths=torch.full((16,), 8, dtype=torch.int32),
        alignment=torch.zeros(16, 12, dtype=torch.int64),
        keys=77777777777 * ranks,
        products=ranks,
        present=torch.ones(16, dtype=torch.bool),
        epochs=torch.zeros(16, dtype=torch.int64),
    )
    return plan(inputs, torch.tensor(1), plan_rules(KALEIDO, mask_id=4, ordinary_first=5, ordinary_last=90))


@pytest.mark.parametrize("row", [0, 5, 11])
def test_panels_show_what_the_plan_says(images: torch.Tensor, drawn: Plan, row: int) -> None:
    pixels = TaskPanels(images, drawn, KALEIDO)
    clean = {task.name: pixels.clean(row, task).patches for task in PAPERS}
    changed = {task.name: pixels.changed(row, task) for task in PAPERS}
    parts = {task.name: [part[row] for part in drawn.part(task.rule)] for task in PAPERS}
    turned = torch.rot90(clean["rotation"][0], int(parts["rotation"][0]), dims=(0, 1))
    torch.testing.assert_close(changed["rotation"].patches[0], turned, atol=1e-5, rtol=0)
    order = PERMUTATIONS[int(parts["jigsaw"][0])]
    for slot, place in enumerate(order):
        assert torch.equal(changed["jigsaw"].patches[slot], clean["jigsaw"][place])
    assert changed["jigsaw"].numbers == [place + 1 for place in order]
    hidden, donor = int(parts["camouflage"][1]), int(drawn.donors[row, 0])
    shown = pixels.clean(donor, TASKS["camouflage"]).patches[int(drawn.donor_slots[row, 0])]
    assert torch.equal(changed["camouflage"].patches[hidden], shown)
    assert changed["camouflage"].marked == {hidden}
    for slot in parts["grey_to_color"][1].tolist():
        luma = clean["grey_to_color"][slot] @ torch.tensor([0.299, 0.587, 0.114])
        torch.testing.assert_close(
            changed["grey_to_color"].patches[slot], luma[..., None].expand(-1, -1, 3), atol=1e-5, rtol=0
        )
    blank = {slot for slot, patch in enumerate(changed["blank_to_color"].patches) if patch is None}
    assert blank == changed["blank_to_color"].marked == set(parts["blank_to_color"][1].tolist())


def test_clean_patches_are_the_photograph(images: torch.Tensor, drawn: Plan) -> None:
    """Level 5's cells are 12 pixels wide, as the patches: no resize, the very pixels."""
    patches = TaskPanels(images, drawn, KALEIDO).clean(3, TASKS["blank_to_color"]).patches
    torch.testing.assert_close(patches[7], images[3, 12:24, 24:36].float() / 255, atol=1e-5, rtol=0)


def test_captions_say_what_was_done(drawn: Plan) -> None:
    """By the effect; a task's name stands above."""
    parts = [[part[3] for part in drawn.part(task.rule)] for task in PAPERS]
    (turns, _), (order, _), (_, hidden), (_, grey), (_, blank) = parts
    assert [caption(drawn, 3, task) for task in PAPERS] == [
        f"rotation\nturned by {90 * int(turns)}°",
        f"jigsaw\npermutation {int(order)} of 24",
        f"camouflage\nslot {int(hidden)} of another product",
        f"grey to colour\nslots {int(grey[0])}, {int(grey[1])} in grey",
        f"blank to colour\nslots {int(blank[0])}, {int(blank[1])}, {int(blank[2])} blank",
    ]
