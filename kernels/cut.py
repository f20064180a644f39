"""cut: all patches of all samples from the locked images (SPEC 2.3, 2.4 and 'Rows').

Level n of an (S, S) image is n x n cells of side S/n. Each cell is resized on its own to (P, P) by the antialiased
triangle filter of `torch.nn.functional.interpolate` (taps beyond the cell dropped, the rest scaled to sum to one), fp32,
unrounded; the level-1 patch is turned, the greyed slots become luma; then (x/255 - mean) / std.

A sample's rows: its K positions (position 0 already turned), then its G greyed slots of the grid-4 level, ascending.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from kaleido_fast.kernels.geometry import check_image_size, num_positions, offset_of_grid

GREY_GRID = 4
LUMA = (0.299, 0.587, 0.114)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def cut_reference(
    images: Tensor,
    rotation: Tensor,
    grey_slots: Tensor,
    grids: Sequence[int],
    patch_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype,
) -> Tensor:
    """The plain version: one resize a level, then turns, greys and normalisation on (B, K+G, 3, P, P)."""
    work = torch.float64 if dtype == torch.float64 else torch.float32
    levels = [_level_patches(images, n, patch_size, work) for n in grids]
    if 1 in grids:
        levels[list(grids).index(1)] = _turned(levels[list(grids).index(1)], rotation)
    patches = torch.cat(levels, dim=1)
    if grey_slots.shape[1]:
        position = offset_of_grid(grids, GREY_GRID) + grey_slots.long()
        picked = patches[torch.arange(len(images))[:, None], position]
        patches = torch.cat([patches, _luma(picked)], dim=1)
    shift = torch.tensor(mean, dtype=work).view(3, 1, 1)
    scale = torch.tensor(std, dtype=work).view(3, 1, 1)
    rows = ((patches / 255 - shift) / scale).flatten(0, 1).to(dtype)
    return rows.contiguous(memory_format=torch.channels_last)


def _level_patches(images: Tensor, n: int, patch_size: int, dtype: torch.dtype) -> Tensor:
    """(B, n*n, 3, P, P): the cells of one level, each resized without a look at its neighbours; 0..255."""
    batch, side = images.shape[0], images.shape[1]
    cell = side // n
    cells = images.view(batch, n, cell, n, cell, 3).permute(0, 1, 3, 5, 2, 4).reshape(-1, 3, cell, cell).to(dtype)
    if cell != patch_size:
        cells = interpolate(cells, (patch_size, patch_size), mode="bilinear", antialias=True, align_corners=False)
    return cells.view(batch, n * n, 3, patch_size, patch_size)


def _turned(patches: Tensor, rotation: Tensor) -> Tensor:
    """(B, 1, 3, P, P), each sample turned by its number of quarter turns, counter-clockwise."""
    turns = torch.stack([torch.rot90(patches, k, dims=(-2, -1)) for k in range(4)])
    return turns[rotation.long(), torch.arange(len(rotation))]


def _luma(patches: Tensor) -> Tensor:
    weights = torch.tensor(LUMA, dtype=patches.dtype)
    return torch.einsum("bgchw,c->bghw", patches, weights)[:, :, None].expand_as(patches)


@torch.library.custom_op("kaleido_fast::cut", mutates_args=(), device_types="cpu")
def _cut(
    images: Tensor,
    rotation: Tensor,
    grey_slots: Tensor,
    grids: Sequence[int],
    patch_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype,
) -> Tensor:
    return cut_reference(images.contiguous(), rotation, grey_slots, grids, patch_size, mean, std, dtype)


@_cut.register_fake
def _(images, rotation, grey_slots, grids, patch_size, mean, std, dtype):  # noqa: ANN001, ANN202
    rows = images.shape[0] * (num_positions(grids) + grey_slots.shape[1])
    shape = (rows, 3, patch_size, patch_size)
    return torch.empty(shape, dtype=dtype, device=images.device, memory_format=torch.channels_last)


def cut(
    images: Tensor,
    rotation: Tensor,
    grey_slots: Tensor,
    *,
    grids: Sequence[int],
    patch_size: int,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Cut, resize, turn, grey and normalise every patch of a batch.

    Args:
        images: (B, S, S, 3) uint8, locked squares; S a multiple of every grid.
        rotation: (B,) int32 in 0..3, quarter turns of the grid-1 level; without that level nothing is turned.
        grey_slots: (B, G) int32 slots of the grid-4 level; G = 0 where nothing is greyed.
        grids: the levels.
        patch_size: P.
        mean, std: per channel, of values in [0, 1].
        dtype: of the result; float64 computes in float64, all others in fp32.
    Returns:
        (B * (K + G), 3, P, P), channels-last.
    Raises:
        ValueError: wrong shape or dtype of `images`, or a side that the grids do not divide.
    """
    if images.dim() != 4 or images.shape[1] != images.shape[2] or images.shape[3] != 3 or images.dtype != torch.uint8:
        raise ValueError(f"cut: images must be (B, S, S, 3) uint8, found {tuple(images.shape)} {images.dtype}")
    check_image_size(images.shape[1], grids)
    if patch_size < 1:
        raise ValueError(f"cut: patch_size={patch_size} must be at least 1")
    if grey_slots.shape[1] and GREY_GRID not in grids:
        raise ValueError(f"cut: grey slots need a level of grid {GREY_GRID}, found grids {list(grids)}")
    return _cut(images, rotation, grey_slots, list(grids), patch_size, list(mean), list(std), dtype)
