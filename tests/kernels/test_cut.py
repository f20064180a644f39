"""cut against a triangle filter written out in NumPy float64, and against torch cell by cell."""

import itertools
import re
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from kaleido_fast.kernels.cut import cut, cut_reference
from kaleido_fast.kernels.geometry import GRIDS, level_offsets
from kaleido_fast.kernels.tasks import TaskRule, as_lists, total_greyed
from tests.kernels.cut_cases import OTHERS, drawn, tasks_of
from tests.kernels.plan_cases import FIVE

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
TURN = (TaskRule(1, "turn"),)
OPERATOR = torch.ops.kaleido_fast.cut.default


def triangle(size: int, out: int) -> np.ndarray:
    """(out, size) weights of the antialiased triangle filter; taps beyond the edge dropped; sums are one."""
    scale = size / out
    centre = (np.arange(out) + 0.5) * scale
    distance = np.abs(np.arange(size) + 0.5 - centre[:, None]) / max(scale, 1.0)
    weights = np.clip(1 - distance, 0, None)
    return weights / weights.sum(axis=1, keepdims=True)


def patch(image: np.ndarray, grid: int, slot: int, size: int) -> np.ndarray:
    """(P, P, 3) float64 of one cell, 0..255."""
    cell = image.shape[0] // grid
    row, column = divmod(slot, grid)
    pixels = image[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell].astype(np.float64)
    weights = triangle(cell, size)
    return np.einsum("yi,ijc,xj->yxc", weights, pixels, weights)


def written_out(
    image: np.ndarray, labels: list[int], slots: list[int], grids: Sequence[int], tasks: Sequence[TaskRule], size: int
) -> np.ndarray:
    """(K + G, P, P, 3) float64: the rows of one sample."""
    levels = {grid: [patch(image, grid, slot, size) for slot in range(grid * grid)] for grid in grids}
    greys, left = [], list(slots)
    for task, label in zip(tasks, labels, strict=True):
        taken, left = left[: task.num_slots], left[task.num_slots :]
        if task.effect == "turn":
            levels[task.grid] = [np.rot90(cell, label) for cell in levels[task.grid]]
        if task.effect == "grey":
            luma = [patch(image, task.grid, slot, size) @ np.array([0.299, 0.587, 0.114]) for slot in taken]
            greys += [np.repeat(cell[..., None], 3, axis=2) for cell in luma]
    rows = [cell for grid in grids for cell in levels[grid]] + greys
    return (np.stack(rows) / 255 - np.array(MEAN)) / np.array(STD)


def photographs(batch: int, side: int) -> Tensor:
    generator = torch.Generator().manual_seed(side)
    return torch.randint(0, 256, (batch, side, side, 3), dtype=torch.uint8, generator=generator)


def cut_plain(
    images: Tensor, *, size: int = 12, grids: Sequence[int] = GRIDS, turns: int = 0, tasks: Sequence[TaskRule] = TURN
) -> Tensor:
    """`cut` of one turn for all and no greys, (B, K, 3, P, P)."""
    labels = torch.full((len(images), len(tasks)), turns, dtype=torch.int32)
    none = torch.zeros(len(images), 0, dtype=torch.int32)
    patches = cut(images, labels, none, grids=grids, tasks=tasks, patch_size=size, mean=MEAN, std=STD)
    return patches.unflatten(0, (len(images), -1))


@pytest.mark.parametrize("batch, side, size, grids, tasks", [
    (4, 60, 12, GRIDS, FIVE),  # shrinks level 1, leaves level 5 as it is
    (1, 120, 24, GRIDS, FIVE),
    (2, 60, 17, GRIDS, tasks_of(GRIDS, 0)),  # divides nothing; enlarges levels 4 and 5
    (1, 60, 70, (1, 2), tasks_of((1, 2), 0)),  # enlarges all
    (2, 64, 11, (8,), ()),
    (3, 24, 9, (2, 4), tasks_of((2, 4), 3)),  # no level to turn
    (2, 24, 6, (4, 1), tasks_of((4, 1), 16)),  # levels in another order, every slot greyed
    (2, 8, 1, (1, 2, 4), tasks_of((1, 2, 4), 1)),  # one pixel a patch
    (0, 60, 12, GRIDS, FIVE),
    (4, 60, 7, GRIDS, OTHERS),
    (4, 60, 7, GRIDS, OTHERS[::-1]),  # greys come task by task, whatever the order of their levels
])
def test_equals_the_written_out_filter(
    batch: int, side: int, size: int, grids: tuple[int, ...], tasks: tuple[TaskRule, ...]
) -> None:
    images, rows = photographs(batch, side), sum(n * n for n in grids) + total_greyed(tasks)
    labels, slots = drawn(batch, tasks)
    slots.clamp_(min=0)  # no hole
    options = {"grids": grids, "tasks": tasks, "patch_size": size, "mean": MEAN, "std": STD}
    double = cut(images, labels, slots, **options, dtype=torch.float64)
    single = cut(images, labels, slots, **options)
    half = cut(images, labels, slots, **options, dtype=torch.bfloat16)
    for patches, dtype in ((double, torch.float64), (single, torch.float32), (half, torch.bfloat16)):
        assert patches.shape == (batch * rows, 3, size, size) and patches.dtype == dtype
        assert patches.permute(0, 2, 3, 1).is_contiguous()
    for image, turns, taken, patches in zip(images, labels, slots, double.unflatten(0, (batch, rows)), strict=True):
        expected = written_out(image.numpy(), turns.tolist(), taken.tolist(), grids, tasks, size)
        np.testing.assert_allclose(patches.permute(0, 2, 3, 1).numpy(), expected, rtol=0, atol=1e-11)
    # torch places the filter in fp32: a tap is off by an ulp of the coordinate, 4e-6 at 60, over std 0.2.
    torch.testing.assert_close(single.double(), double, rtol=0, atol=4e-5)
    assert torch.equal(half, single.bfloat16())  # rounded once


@pytest.mark.parametrize("side, size", [(60, 12), (120, 24), (60, 20), (60, 70)])
def test_equals_torch_cell_by_cell(side: int, size: int) -> None:
    images = photographs(2, side)
    mean, std = (torch.tensor(numbers).view(3, 1, 1) for numbers in (MEAN, STD))
    for image, patches in zip(images.permute(0, 3, 1, 2).float(), cut_plain(images, size=size), strict=True):
        rows = iter(patches)
        for cell in (side // grid for grid in GRIDS):
            for top, left in itertools.product(range(0, side, cell), repeat=2):
                pixels = image[None, :, top : top + cell, left : left + cell]
                resized = interpolate(pixels, size=(size, size), mode="bilinear", antialias=True)[0]
                torch.testing.assert_close(next(rows), (resized / 255 - mean) / std, rtol=1e-6, atol=2e-6)
        assert next(rows, None) is None


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_level_1_alone_is_turned_as_rot90_does(turns: int) -> None:
    images = photographs(3, 60)
    still, turned = cut_plain(images), cut_plain(images, turns=turns)
    assert torch.equal(turned[:, 0], still[:, 0].rot90(turns, dims=(2, 3)))
    assert torch.equal(turned[:, 1:], still[:, 1:])
    if turns:
        assert not torch.equal(turned[:, 0], still[:, 0])


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_every_patch_of_a_turned_level_stays_in_its_place(turns: int) -> None:
    images, tasks = photographs(2, 60), (TaskRule(3, "turn"),)
    still, turned = cut_plain(images, tasks=tasks), cut_plain(images, turns=turns, tasks=tasks)
    assert torch.equal(turned[:, 5:14], still[:, 5:14].rot90(turns, dims=(3, 4)))
    assert torch.equal(turned[:, :5], still[:, :5]) and torch.equal(turned[:, 14:], still[:, 14:])


def test_greys_are_luma_beside_their_untouched_colours() -> None:
    images, tasks = photographs(2, 60), (TaskRule(4, "grey", 2),)
    slots = torch.tensor([[3, 9], [-1, -1]], dtype=torch.int32)  # the second sample is a hole
    options = {"grids": GRIDS, "tasks": tasks, "patch_size": 12, "mean": MEAN, "std": STD}
    patches = cut(images, torch.full((2, 1), -100, dtype=torch.int32), slots, **options).unflatten(0, (2, 57))
    assert torch.equal(patches[:, :55], cut_plain(images))
    mean, std = (torch.tensor(numbers).view(3, 1, 1) for numbers in (MEAN, STD))
    colour, grey = patches[0, [14 + 3, 14 + 9]] * std + mean, patches[0, 55:] * std + mean
    luma = (colour * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(dim=1, keepdim=True)
    torch.testing.assert_close(grey, luma.expand_as(grey))
    assert not patches[1, 55:].any()


def test_a_cell_never_sees_its_neighbour() -> None:
    images = photographs(1, 60)
    before = cut_plain(images)[0]
    for grid, offset in zip(GRIDS, level_offsets(), strict=True):
        side = 60 // grid
        for slot in range(grid * grid):
            row, column = divmod(slot, grid)
            changed = images.clone()
            changed[0, row * side : (row + 1) * side, column * side : (column + 1) * side] ^= 255
            same = (cut_plain(changed)[0] == before).flatten(1).all(dim=1)[offset : offset + grid * grid]
            assert same.logical_not().nonzero().flatten().tolist() == [slot]


def test_a_sample_never_sees_its_neighbour() -> None:
    images = photographs(5, 60)
    assert torch.equal(cut_plain(images)[3:4], cut_plain(images[3:4]))


def test_inputs_stay_as_they_were() -> None:
    """At P = S level 1 needs no resize, and a shortcut could hand out the image itself."""
    images = photographs(2, 12)
    kept, first = images.clone(), cut_plain(images, size=12, grids=(1, 2))
    assert torch.equal(images, kept) and torch.equal(cut_plain(images, size=12, grids=(1, 2)), first)


@pytest.mark.parametrize("view", ["every other column", "planes first", "flipped"])
def test_non_contiguous_images_give_the_same(view: str) -> None:
    images = photographs(2, 60)
    if view == "every other column":
        other = torch.stack((images, 255 - images), dim=3).flatten(2, 3)[:, :, ::2]
    elif view == "planes first":
        other = images.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    else:
        other = images.transpose(1, 2).contiguous().transpose(1, 2)
    assert not other.is_contiguous() and torch.equal(cut_plain(other), cut_plain(images))


def test_flat_white_and_black_come_out_flat() -> None:
    images = torch.zeros(2, 60, 60, 3, dtype=torch.uint8)
    images[1] = 255
    patches = cut_plain(images, size=17)
    mean, std = (torch.tensor(numbers).view(3, 1, 1) for numbers in (MEAN, STD))
    torch.testing.assert_close(patches[0], (-mean / std).expand_as(patches[0]), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(patches[1], ((1 - mean) / std).expand_as(patches[1]), rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize("batch, tasks, dtype", [(2, OTHERS[:2], torch.float32), (1, TURN, torch.bfloat16)])
def test_the_operator_is_registered_in_full(batch: int, tasks: tuple[TaskRule, ...], dtype: torch.dtype) -> None:
    arguments = (photographs(batch, 12), *drawn(batch, tasks), list(MEAN), list(STD), dtype, 8, [1, 2, 3], *as_lists(tasks))
    torch.library.opcheck(OPERATOR, arguments)


def test_compiled_it_is_one_graph_with_the_same_bits() -> None:
    labels, slots = drawn(2, FIVE)
    options = {"grids": GRIDS, "tasks": FIVE, "patch_size": 12, "mean": MEAN, "std": STD}

    def doubled(images: Tensor) -> Tensor:
        return 2 * cut(images, labels, slots, **options)

    images = photographs(2, 60)
    eager = 2 * cut_reference(images, labels, slots, **options, dtype=torch.float32)
    assert torch.equal(torch.compile(doubled, fullgraph=True)(images), eager)


def acceptable() -> dict[str, object]:
    """Arguments that `cut` takes."""
    return {
        "images": torch.zeros(1, 60, 60, 3, dtype=torch.uint8), "labels": torch.zeros(1, 5, dtype=torch.int32),
        "slots": torch.zeros(1, 6, dtype=torch.int32), "grids": GRIDS, "tasks": FIVE, "patch_size": 8, "mean": MEAN,
        "std": STD, "dtype": torch.float32,
    }


@pytest.mark.parametrize("name, shape, dtype, must", [
    ("images", (1, 60, 50, 3), torch.uint8, r"\(B, S, S, 3\) uint8"),
    ("images", (1, 3, 60, 60), torch.uint8, r"\(B, S, S, 3\) uint8"),
    ("images", (1, 60, 60, 3), torch.float32, r"\(B, S, S, 3\) uint8"),
    ("labels", (2, 5), torch.int32, r"\(1, 5\) int32, B of images and what the tasks have; take it from the batch's plan"),
    ("labels", (1, 5), torch.int64, r"\(1, 5\) int32"),
    ("slots", (1, 2), torch.int32, r"\(1, 6\) int32"),
])
def test_a_wrong_shape_or_dtype_is_named(
    name: str, shape: tuple[int, ...], dtype: torch.dtype, must: str
) -> None:
    found = re.escape(f"cut: {name} {shape} {dtype} must be ")
    with pytest.raises(ValueError, match=f"^{found}{must}"):
        cut(**(acceptable() | {name: torch.zeros(shape, dtype=dtype)}))


@pytest.mark.parametrize("change, message", [
    ({"patch_size": 0}, "cut: patch_size=0 and dtype=torch.float32 must be 1 or more and a floating dtype; patches are"),
    ({"dtype": torch.uint8}, "cut: patch_size=8 and dtype=torch.uint8 must be 1 or more and a floating"),
    ({"mean": (0.5,)}, r"cut: mean=\[0.5\] and std=\[0.2, 0.3, 0.25\] must hold a number for each of R, G, B, std above 0; I"),
    ({"std": (0.2, 0.0, 0.2)}, r"cut: mean=\[0.4, 0.5, 0.6\] and std=\[0.2, 0.0, 0.2\] must hold a number"),
    ({"images": torch.zeros(1, 61, 61, 3, dtype=torch.uint8)}, r"^cut: images \(1, 61, 61, 3\) must have a "
     r"side that is a multiple of every grid, found grids \[2, 3, 4, 5\]"),
    ({"grids": (1, 2, 3)}, r"^grids=\[1, 2, 3\]: no level of grid 4"),
    ({"tasks": (*FIVE, TaskRule(3, "turn", draw=2))}, "^tasks: swap and turn both change the level of grid 3"),
])
def test_messages(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cut(**(acceptable() | change))
