"""cut: kaleido patches from locked images (SPEC 2.3, 2.4 and 'Rows.'; section 3 for rotation and grey).

Every level n cuts the image into n x n cells of side S/n and resizes each cell on its own to P x P with an
antialiased triangle filter: a cell never sees its neighbour's pixels, which would give the jigsaw away. Then
the patch of level 1 is turned, G patches of level 4 are repeated in luma, and all are normalised, (x/255 -
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
from kaleido_fast.kernels.geometry import check_image_size, num_positions, offset_of_grid
from kaleido_fast.kernels.plan_rules import GREY_GRID, ROTATION_GRID


def cut_reference(
    images: Tensor, rotation: Tensor, grey_slots: Tensor, *, grids: Sequence[int], patch_size: int,
    mean: Sequence[float], std: Sequence[float], dtype: torch.dtype,
) -> Tensor:
    """`cut` in plain PyTorch, arguments as there: the CPU path, and the truth for kernels."""
    compute = torch.promote_types(dtype, torch.float32)
    planes = images.permute(0, 3, 1, 2).to(compute, memory_format=torch.contiguous_format)
    scale, shift = (numbers.view(3, 1, 1).to(planes) for numbers in normalisation(mean, std))
    rows = num_positions(grids) + grey_slots.shape[1]
    patches = images.new_empty((len(images), rows, patch_size, patch_size, 3), dtype=dtype).movedim(-1, 2)
    first = 0
    for grid in grids:
        level = _resized_cells(planes, grid, patch_size)
        if grid == ROTATION_GRID:
            level = _turned(level, rotation)
        if grid == GREY_GRID and grey_slots.shape[1]:
            patches[:, num_positions(grids):] = _greyed(level, grey_slots, scale, shift)
        patches[:, first:first + grid * grid] = level.mul_(scale).add_(shift)
        first += grid * grid
    return patches.flatten(0, 1)


def _resized_cells(planes: Tensor, grid: int, patch_size: int) -> Tensor:
    """(B, grid * grid, 3, P, P): the cells of (B, 3, S, S), each resized on its own."""
    batch, side = len(planes), planes.shape[2] // grid
    cells = planes.view(batch, 3, grid, side, grid, side).permute(0, 2, 4, 1, 3, 5).reshape(-1, 3, side, side)
    size = (patch_size, patch_size)
    patches = interpolate(cells, size=size, mode="bilinear", antialias=True, align_corners=False)
    return patches.view(batch, grid * grid, 3, *size)


def _turned(level: Tensor, rotation: Tensor) -> Tensor:
    """(B, 1, 3, P, P), sample b turned by rotation[b] quarter turns, counter-clockwise as torch.rot90."""
    turns = rotation.view(-1, 1, 1, 1, 1) % 4
    for quarter in (1, 2, 3):
        level = torch.where(turns == quarter, level.rot90(quarter, dims=(3, 4)), level)
    return level


def _greyed(level: Tensor, grey_slots: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """(B, G, 3, P, P): the normalised luma of level 4's `grey_slots`, zero where the slot is -1."""
    samples = torch.arange(len(level), device=level.device)[:, None]
    colour = level[samples, grey_slots.clamp(min=0)]
    weights = torch.tensor(LUMA, dtype=torch.float64).view(3, 1, 1).to(level)
    luma = (colour * weights).sum(dim=2, keepdim=True)
    return (luma * scale + shift) * (grey_slots >= 0).view(*grey_slots.shape, 1, 1, 1)


@torch.library.custom_op("kaleido_fast::cut", mutates_args=(), device_types="cpu")
def _cut_op(
    images: Tensor, rotation: Tensor, grey_slots: Tensor, grids: Sequence[int], patch_size: int,
    mean: Sequence[float], std: Sequence[float], dtype: torch.dtype,
) -> Tensor:
    return cut_reference(
        images, rotation, grey_slots, grids=grids, patch_size=patch_size, mean=mean, std=std, dtype=dtype
    )


@_cut_op.register_kernel("cuda")
def _cut_cuda(
    images: Tensor, rotation: Tensor, grey_slots: Tensor, grids: Sequence[int], patch_size: int,
    mean: Sequence[float], std: Sequence[float], dtype: torch.dtype,
) -> Tensor:
    return cut_triton(
        images, rotation, grey_slots, grids=grids, patch_size=patch_size, mean=mean, std=std, dtype=dtype
    )


@_cut_op.register_fake
def _cut_fake(
    images: Tensor, rotation: Tensor, grey_slots: Tensor, grids: Sequence[int], patch_size: int,
    mean: Sequence[float], std: Sequence[float], dtype: torch.dtype,
) -> Tensor:
    rows = images.shape[0] * (num_positions(grids) + grey_slots.shape[1])
    return images.new_empty((rows, patch_size, patch_size, 3), dtype=dtype).permute(0, 3, 1, 2)


def cut(
    images: Tensor, rotation: Tensor, grey_slots: Tensor, *, grids: Sequence[int], patch_size: int,
    mean: Sequence[float], std: Sequence[float], dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The patches to encode of a batch of locked images.

    Args:
        images: (B, S, S, 3) uint8, RGB; S a multiple of every grid.
        rotation: (B,) int32, counter-clockwise quarter turns of the level of grid 1; without it not read.
        grey_slots: (B, G) int32, slots of the level of grid 4; -1 (a hole) gives a patch of zeros. One above 15 is an
            IndexError on the CPU and read as 15 on a GPU, where looking would wait for the device.
        mean, std: of the three channels, in units of x/255.
    Returns:
        (B * (K + G), 3, P, P) of `dtype`, channels-last; row b * (K + G) + p is position p of sample b, from
        p = K on its greyed slots.
    Raises:
        ValueError: a shape, a dtype or the image side does not fit.
    """
    _check(images, rotation, grey_slots, grids, patch_size, mean, std, dtype)
    return _cut_op(images, rotation, grey_slots, list(grids), patch_size, list(mean), list(std), dtype)


def _check(
    images: Tensor, rotation: Tensor, grey_slots: Tensor, grids: Sequence[int], patch_size: int,
    mean: Sequence[float], std: Sequence[float], dtype: torch.dtype,
) -> None:
    shape = tuple(images.shape)
    if images.dim() != 4 or shape[1] != shape[2] or shape[3] != 3 or images.dtype != torch.uint8:
        raise ValueError(
            f"cut: images {shape} {images.dtype} must be (B, S, S, 3) uint8; lock and resize them first"
        )
    check_image_size(shape[1], grids)
    for name, tensor, axes in (("rotation", rotation, 1), ("grey_slots", grey_slots, 2)):
        if tensor.dim() != axes or tensor.shape[0] != shape[0] or tensor.dtype != torch.int32:
            raise ValueError(
                f"cut: {name} {tuple(tensor.shape)} {tensor.dtype} must be int32 with {axes} axes, the first"
                f" B={shape[0]} of images; take it from the batch's plan"
            )
    if grey_slots.shape[1]:
        offset_of_grid(grids, GREY_GRID)  # raises where there is nothing to grey
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
