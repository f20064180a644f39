"""cut: kaleido patches from locked images (SPEC 2.3, 2.4 and 'Rows.'; section 3 for turns and greys).

Every level n cuts the image into n x n cells of side S/n and resizes each cell on its own to P x P with an
antialiased triangle filter: a cell never sees its neighbour's pixels, which would give a permutation away. Then
patches of levels that are turned are turned, greyed slots are repeated in luma, and all are normalised, (x/255 -
mean) / std. fp32 throughout, float64 where that is asked for (on the CPU alone); rounded once, to the dtype
asked for. CUDA tensors go to the kernel of cut_triton.py.

Shapes: B samples, S image side, P patch side, K positions, G greyed slots. A sample's rows: its K positions,
then G.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from kaleido_fast.kernels.cut_filter import LUMA, normalisation
from kaleido_fast.kernels.cut_triton import cut_triton
from kaleido_fast.kernels.geometry import num_positions, uneven_grids
from kaleido_fast.kernels.plan_rules import check_tasks
from kaleido_fast.kernels.tasks import NUM_TURNS, TaskRule, as_lists, first_slots, from_lists, total_greyed


def cut_reference(
    images: Tensor, labels: Tensor, slots: Tensor, *, grids: Sequence[int], tasks: Sequence[TaskRule], patch_size: int,
    mean: Sequence[float], std: Sequence[float], dtype: torch.dtype,
) -> Tensor:
    """`cut` in plain PyTorch, arguments as there: the CPU path, and the truth for kernels."""
    compute = torch.promote_types(dtype, torch.float32)
    planes = images.permute(0, 3, 1, 2).to(compute, memory_format=torch.contiguous_format)
    scale, shift = (numbers.view(3, 1, 1).to(planes) for numbers in normalisation(mean, std))
    placed = zip(tasks, first_slots(tasks), strict=True)
    columns = {task.grid: (task, column, first) for column, (task, first) in enumerate(placed)}
    rows = num_positions(grids) + total_greyed(tasks)
    patches = images.new_empty((len(images), rows, patch_size, patch_size, 3), dtype=dtype).movedim(-1, 2)
    greyed, first = {}, 0
    for grid in grids:
        level = _resized_cells(planes, grid, patch_size)
        task, column, first_slot = columns.get(grid, (None, 0, 0))
        if task and task.effect == "turn":
            level = _turned(level, labels[:, column])
        if task and task.effect == "grey":
            greyed[grid] = _greyed(level, slots[:, first_slot : first_slot + task.num_slots], scale, shift)
        patches[:, first : first + grid * grid] = level.mul_(scale).add_(shift)
        first += grid * grid
    for task in tasks:
        if task.effect == "grey":
            patches[:, first : first + task.num_slots] = greyed[task.grid]
            first += task.num_slots
    return patches.flatten(0, 1)


def _resized_cells(planes: Tensor, grid: int, patch_size: int) -> Tensor:
    """(B, grid * grid, 3, P, P): the cells of (B, 3, S, S), each resized on its own."""
    batch, side = len(planes), planes.shape[2] // grid
    cells = planes.view(batch, 3, grid, side, grid, side).permute(0, 2, 4, 1, 3, 5).reshape(-1, 3, side, side)
    size = (patch_size, patch_size)
    patches = interpolate(cells, size=size, mode="bilinear", antialias=True, align_corners=False)
    return patches.view(batch, grid * grid, 3, *size)


def _turned(level: Tensor, turns: Tensor) -> Tensor:
    """(B, n*n, 3, P, P), sample b turned by turns[b] quarter turns, counter-clockwise as torch.rot90."""
    turns = turns.view(-1, 1, 1, 1, 1) % NUM_TURNS
    for quarter in range(1, NUM_TURNS):
        level = torch.where(turns == quarter, level.rot90(quarter, dims=(3, 4)), level)
    return level


def _greyed(level: Tensor, slots: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """(B, num_slots, 3, P, P): the normalised luma of a level's `slots`, zero where the slot is -1."""
    samples = torch.arange(len(level), device=level.device)[:, None]
    colour = level[samples, slots.clamp(min=0)]
    weights = torch.tensor(LUMA, dtype=torch.float64).view(3, 1, 1).to(level)
    luma = (colour * weights).sum(dim=2, keepdim=True)
    return (luma * scale + shift) * (slots >= 0).view(*slots.shape, 1, 1, 1)


@torch.library.custom_op("kaleido_fast::cut", mutates_args=(), device_types="cpu")
def _cut_op(
    images: Tensor, labels: Tensor, slots: Tensor, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype,
    patch_size: int, grids: Sequence[int], task_grids: Sequence[int], task_effects: Sequence[int],
    task_counts: Sequence[int], task_draws: Sequence[int],
) -> Tensor:
    tasks = from_lists(task_grids, task_effects, task_counts, task_draws)
    return cut_reference(
        images, labels, slots, grids=grids, tasks=tasks, patch_size=patch_size, mean=mean, std=std, dtype=dtype
    )


@_cut_op.register_kernel("cuda")
def _cut_cuda(
    images: Tensor, labels: Tensor, slots: Tensor, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype,
    patch_size: int, grids: Sequence[int], *tasks: Sequence[int],
) -> Tensor:
    return cut_triton(
        images, labels, slots, grids=grids, tasks=from_lists(*tasks), patch_size=patch_size, mean=mean, std=std, dtype=dtype
    )


@_cut_op.register_fake
def _cut_fake(
    images: Tensor, labels: Tensor, slots: Tensor, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype,
    patch_size: int, grids: Sequence[int], *tasks: Sequence[int],
) -> Tensor:
    rows = images.shape[0] * (num_positions(grids) + total_greyed(from_lists(*tasks)))
    return images.new_empty((rows, patch_size, patch_size, 3), dtype=dtype).permute(0, 3, 1, 2)


def cut(
    images: Tensor, labels: Tensor, slots: Tensor, *, grids: Sequence[int], tasks: Sequence[TaskRule], patch_size: int,
    mean: Sequence[float], std: Sequence[float], dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The patches to encode of a batch of locked images.

    Args:
        images: (B, S, S, 3) uint8, RGB; S a multiple of every grid.
        labels: (B, tasks) int32, of a plan; the columns of turns are read, counter-clockwise quarter turns.
        slots: (B, sum of counts) int32, of a plan; those to grey are read. -1 (a hole) gives a patch of zeros. One beyond
            its level is an IndexError on the CPU and read as the last on a GPU, where looking would wait for the device.
        tasks: what the columns belong to; () where all is clean.
        mean, std: of the three channels, in units of x/255.
    Returns:
        (B * (K + G), 3, P, P) of `dtype`, channels-last; row b * (K + G) + p is position p of sample b, from
        p = K on its greyed slots, task by task.
    Raises:
        ValueError: a shape, a dtype, a task or the image side does not fit.
    """
    _check(images, labels, slots, grids, tasks, patch_size, mean, std, dtype)
    return _cut_op(images, labels, slots, list(mean), list(std), dtype, patch_size, list(grids), *as_lists(tasks))


def _check(
    images: Tensor, labels: Tensor, slots: Tensor, grids: Sequence[int], tasks: Sequence[TaskRule], patch_size: int,
    mean: Sequence[float], std: Sequence[float], dtype: torch.dtype,
) -> None:
    shape = tuple(images.shape)
    if images.dim() != 4 or shape[1] != shape[2] or shape[3] != 3 or images.dtype != torch.uint8:
        raise ValueError(
            f"cut: images {shape} {images.dtype} must be (B, S, S, 3) uint8; lock and resize them first"
        )
    if uneven := uneven_grids(shape[1], grids):
        raise ValueError(f"cut: images {shape} must have a side that is a multiple of every grid, found grids {uneven}; 120 "
                         "and 240 fit 1..5")
    check_tasks(tasks, grids)
    for name, tensor, columns in (("labels", labels, len(tasks)), ("slots", slots, sum(task.num_slots for task in tasks))):
        if tuple(tensor.shape) != (shape[0], columns) or tensor.dtype != torch.int32:
            raise ValueError(
                f"cut: {name} {tuple(tensor.shape)} {tensor.dtype} must be ({shape[0]}, {columns}) int32, B of images and"
                " what the tasks have; take it from the batch's plan"
            )
    if patch_size < 1 or not dtype.is_floating_point:
        raise ValueError(
            f"cut: patch_size={patch_size} and dtype={dtype} must be 1 or more and a floating dtype; patches are"
            " squares of that side"
        )
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise ValueError(
            f"cut: mean={list(mean)} and std={list(std)} must hold a number for each of R, G, B, std above 0;"
            " ImageNet's are about 0.45 and 0.22"
        )
