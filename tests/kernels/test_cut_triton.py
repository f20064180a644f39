"""The Triton kernel of `cut`, interpreted, against the reference in float64: values, bounds, traffic."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from kaleido_fast.kernels.cut import cut, cut_reference
from kaleido_fast.kernels.cut_tiles import levels_of
from kaleido_fast.kernels.geometry import GRIDS, num_positions
from kaleido_fast.kernels.tasks import TaskRule
from tests.kernels.cut_cases import GEOMETRIES, drawn, tasks_of
from tests.kernels.guards import Guards
from tests.kernels.interpreter import interpreted
from tests.kernels.mutations import Break, assert_caught
from tests.kernels.plan_cases import FIVE
from tests.kernels.traffic import recorded

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
CutTriton = Callable[..., Tensor]
TURN, GREY = (TaskRule(1, "turn"),), (TaskRule(4, "grey", 1),)


@pytest.fixture(scope="module")
def cut_triton() -> CutTriton:
    return interpreted("cut_triton").cut_triton


def batch(size: int, side: int, tasks: Sequence[TaskRule]) -> tuple[Tensor, Tensor, Tensor]:
    """Images, labels and slots."""
    generator = torch.Generator().manual_seed(side + len(tasks))
    images = torch.randint(0, 256, (size, side, side, 3), dtype=torch.uint8, generator=generator)
    return images, *drawn(size, tasks, seed=side)


def options(grids: Sequence[int], patch_size: int, tasks: Sequence[TaskRule]) -> dict[str, object]:
    return {"grids": grids, "tasks": tasks, "patch_size": patch_size, "mean": MEAN, "std": STD}


def assert_near(patches: Tensor, truth: Tensor) -> None:
    """fp32 to 1e-6 of the largest magnitude, ten times better than asked; bf16 one more rounding away."""
    assert patches.shape == truth.shape and patches.permute(0, 2, 3, 1).is_contiguous()
    bound = 1e-6 * truth.abs().max()
    if patches.dtype == torch.bfloat16:
        bound = bound + truth.abs() * 2.0**-7  # the interpreter cuts off what a GPU rounds: up to a whole ulp
    assert ((patches.double() - truth).abs() <= bound).all()


@pytest.mark.parametrize("size, side, patch_size, grids, tasks", GEOMETRIES, ids=str)
def test_equals_the_reference(
    cut_triton: CutTriton, size: int, side: int, patch_size: int, grids: tuple[int, ...], tasks: int | tuple[TaskRule, ...]
) -> None:
    tasks = tasks_of(grids, tasks) if isinstance(tasks, int) else tasks
    tensors, given = batch(size, side, tasks), options(grids, patch_size, tasks)
    truth = cut_reference(*tensors, **given, dtype=torch.float64)
    with Guards() as guards:
        patches = cut_triton(*map(guards.place, tensors), **given)
    assert patches.dtype == torch.float32
    assert_near(patches, truth)


@pytest.mark.parametrize("side, patch_size, grids, num_grey", [(60, 24, (1, 4, 5), 2), (30, 20, (1, 3), 0)], ids=str)
def test_bf16_is_rounded_once(
    cut_triton: CutTriton, side: int, patch_size: int, grids: tuple[int, ...], num_grey: int
) -> None:
    tasks = tasks_of(grids, num_grey)
    tensors, given = batch(2, side, tasks), options(grids, patch_size, tasks)
    patches = cut_triton(*tensors, **given, dtype=torch.bfloat16)
    assert patches.dtype == torch.bfloat16
    assert_near(patches, cut_reference(*tensors, **given, dtype=torch.float64))


def test_the_real_shape_and_its_traffic(cut_triton: CutTriton) -> None:
    """S 240, P 48: the image asked for at most 7 times, of level-2 cache; every output written once."""
    tensors, given = batch(1, 240, FIVE), options(GRIDS, 48, FIVE)
    with recorded() as traffic:
        patches = cut_triton(*tensors, **given, dtype=torch.bfloat16)
    assert_near(patches, cut_reference(*tensors, **given, dtype=torch.float64))
    assert 5 * 240 * 240 * 3 <= traffic.reads["images_ptr"] <= 7 * 240 * 240 * 3
    # Two programs side by side over level 1 share the sector where they meet.
    assert set(traffic.writes) == {"out_ptr"} and 1 <= traffic.writes["out_ptr"] / (57 * 48 * 48 * 3 * 2) < 1.005


@pytest.mark.parametrize("view", ["wide rows", "every other sample", "planes first", "flipped", "one image for all"])
def test_strided_images(cut_triton: CutTriton, view: str) -> None:
    tasks = tasks_of((1, 4), 1)
    images, labels, slots = batch(3, 24, tasks)
    if view == "wide rows":
        images = torch.cat((images, 255 - images), dim=2)[:, :, :24]
    elif view == "every other sample":
        images = torch.stack((images, 255 - images), dim=1).flatten(0, 1)[::2]
    elif view == "planes first":
        images = images.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    elif view == "flipped":
        images = images.transpose(1, 2).contiguous().transpose(1, 2)
    else:
        images = images[:1].expand(3, -1, -1, -1)
    labels, slots = labels.repeat_interleave(2, dim=0)[::2], slots.repeat(1, 2)[:, ::2]
    given = options((1, 4), 16, tasks)
    truth = cut_reference(images, labels, slots, **given, dtype=torch.float64)
    with Guards() as guards:
        patches = cut_triton(*map(guards.place, (images, labels, slots)), **given)
    assert_near(patches, truth)


def test_addresses_beyond_32_bits(cut_triton: CutTriton) -> None:
    images, labels, slots = batch(3, 16, TURN)
    far = torch.empty(2**31 + 4096, dtype=torch.uint8).as_strided(images.shape, (2**30 + 16, *images.stride()[1:]))
    far.copy_(images)  # the rest of the memory is never touched
    with Guards():
        patches = cut_triton(far, labels, slots, **options((1,), 16, TURN))
    assert_near(patches, cut_reference(images, labels, slots, **options((1,), 16, TURN), dtype=torch.float64))


def test_rows_too_far_apart_for_32_bits_are_copied(cut_triton: CutTriton) -> None:
    images, labels, slots = batch(1, 16, TURN)
    far = torch.empty(2**31 + 4096, dtype=torch.uint8).as_strided(images.shape, (0, 2**27, 3, 1))
    far.copy_(images)
    with Guards():
        patches = cut_triton(far, labels, slots, **options((1,), 16, TURN))
    assert_near(patches, cut_reference(images, labels, slots, **options((1,), 16, TURN), dtype=torch.float64))


def test_a_slot_beyond_the_level_reads_its_last_cell(cut_triton: CutTriton) -> None:
    images, labels, slots = batch(1, 16, GREY)
    with Guards() as guards:
        placed = guards.place(images), labels, torch.full_like(slots, 16)
        patches = cut_triton(*placed, **options((4,), 16, GREY))
    truth = cut_reference(images, labels, torch.full_like(slots, 15), **options((4,), 16, GREY), dtype=torch.float64)
    assert_near(patches, truth)


def test_an_empty_batch_is_not_launched(cut_triton: CutTriton) -> None:
    assert cut_triton(*batch(0, 24, tasks_of((1, 4), 1)), **options((1, 4), 16, tasks_of((1, 4), 1))).shape == (0, 3, 16, 16)


def test_float64_is_left_to_the_cpu(cut_triton: CutTriton) -> None:
    with pytest.raises(ValueError, match=r"^cut: dtype=torch.float64 on cpu must be one of \[torch.float32,"):
        cut_triton(*batch(1, 24, TURN), **options((1,), 16, TURN), dtype=torch.float64)


def test_a_changed_pixel_changes_its_own_patches_alone(cut_triton: CutTriton) -> None:
    images, labels, slots = batch(1, 24, TURN)
    changed = images.clone()
    changed[0, 13, 5] ^= 255  # the lower left of grid 2; slot 12 - 4 = 8 of grid 4
    before, after = (cut_triton(x, labels, slots, **options((1, 2, 4), 16, TURN)) for x in (images, changed))
    assert (before != after).flatten(1).any(dim=1).nonzero().flatten().tolist() == [0, 1 + 2, 5 + 8]


BREAKS = (
    Break("turned the other way", "tl.where(turns == 1, b, ROWS - 1 - b)", "tl.where(turns == 3, b, ROWS - 1 - b)"),
    Break("holes shine through", "tl.where(slot >= 0, value, 0.0)", "value"),
    Break("slots beyond the level", "tl.minimum(tl.maximum(slot, 0), GRID * GRID - 1)", "tl.maximum(slot, 0)"),
    Break("another task's turns", "label_stride + LEVELS[at].turns)", "label_stride)"),
    Break("another task's slots", "slots_ptr + (LEVELS[AT].slots + cell)", "slots_ptr + cell"),
    Break("samples 32 bits apart", "(tl.program_id(0) // ITEMS).to(tl.int64)", "(tl.program_id(0) // ITEMS)"),
    Break("first taps down again", "pixel_ptr + (body + k) * ROW", "pixel_ptr + k * ROW"),
    Break("first taps along again", "((body + t) * PACE)", "(t * PACE)"),
    Break("tile too tall", "live = (source_y < ROWS) & (y0 + source_y < P)", "live = source_y >= 0"),
    Break("columns beyond the edge", "& (column < 3 * P)", ""),
    Break("one channel's shift for all", "shift = tl.load(weights_ptr + channel)",
          "shift = tl.load(weights_ptr + 0 * channel)"),
    Break("copied from the wrong rows", "cell_ptr + y * ROW + word", "cell_ptr + y * (3 * P) + word"),
)


def _check(twin: ModuleType) -> None:
    test_addresses_beyond_32_bits(twin.cut_triton)
    test_a_slot_beyond_the_level_reads_its_last_cell(twin.cut_triton)
    for case in ((4, 24, 16, (1, 4), 2), (2, 144, 48, (3,), 0), (1, 130, 16, (1,), 0), (4, 20, 19, (1,), 0),
                 (4, 24, 8, (1, 2, 3, 4), (TaskRule(1, "grey", 1), TaskRule(2, "turn"), TaskRule(4, "grey", 2)))):
        test_equals_the_reference(twin.cut_triton, *case)


@pytest.mark.slow
def test_a_broken_kernel_is_caught(tmp_path: Path) -> None:
    assert_caught("cut_triton", BREAKS, _check, tmp_path)


def test_tiles_cover_every_row_of_every_cell() -> None:
    for side, patch_size in ((240, 48), (240, 224), (480, 16), (60, 50), (120, 24)):
        levels = levels_of(side, GRIDS, patch_size, FIVE)
        assert [level.first_row for level in levels] == [0, 1, 5, 14, 30, num_positions()]
        for level in levels:
            assert level.rows * level.tiles >= patch_size and level.cols * level.splits >= patch_size
            covered = level.steps * level.parts
            assert covered >= level.tiles if level.copied else covered >= level.tiles * level.cells
            assert patch_size % 8 or level.cols % 8 == 0  # stores of 8 values


def test_cells_too_wide_for_a_whole_row_a_tile_are_filtered() -> None:
    """P 341 is the widest whose rows of 3 values fit a tile; a cell of the patch's size is copied up to there alone."""
    assert [levels_of(2 * size, (2,), size, ())[0].copied for size in (341, 342, 480)] == [True, False, False]


@pytest.mark.gpu
@pytest.mark.parametrize("side, patch_size, size", [
    (240, 48, 64), (240, 224, 16), (480, 16, 8), (120, 24, 33), (60, 50, 7),
])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_the_device(side: int, patch_size: int, size: int, dtype: torch.dtype) -> None:
    tensors, given = batch(size, side, FIVE), options(GRIDS, patch_size, FIVE)
    patches = cut(*(tensor.cuda() for tensor in tensors), **given, dtype=dtype)
    assert_near(patches.cpu(), cut_reference(*tensors, **given, dtype=torch.float64))


@pytest.mark.gpu
def test_more_than_2_to_the_31_values_on_the_device() -> None:
    """600 samples, P 224: 5.1 billion values; first and last samples are looked at."""
    images, labels, slots = (tensor.cuda() for tensor in batch(600, 240, FIVE))
    patches = cut(images, labels, slots, **options(GRIDS, 224, FIVE), dtype=torch.bfloat16).unflatten(0, (600, 57))
    for sample in (0, 599):
        one = (images[sample:sample + 1].cpu(), labels[sample:sample + 1].cpu(), slots[sample:sample + 1].cpu())
        assert_near(patches[sample].cpu(), cut_reference(*one, **options(GRIDS, 224, FIVE), dtype=torch.float64))


@pytest.mark.gpu
def test_replayed_and_compiled_on_the_device() -> None:
    tensors, given = [tensor.cuda() for tensor in batch(8, 240, FIVE)], options(GRIDS, 48, FIVE)
    eager = cut(*tensors, **given)
    compiled = torch.compile(lambda *x: cut(*x, **given), fullgraph=True)
    assert torch.equal(compiled(*tensors), eager)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = cut(*tensors, **given)
    tensors[0].bitwise_xor_(255)
    graph.replay()
    assert torch.equal(captured, cut(*tensors, **given)) and not torch.equal(captured, eager)
