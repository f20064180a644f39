"""From an attention map to the patches of its region (SPEC 5).

The map is brought to the square's pixels (bilinear, half-pixel centres) and smoothed by a Gaussian, as Xu et al. (2015) show
theirs: one place is smaller than half a patch. Beyond the square is nothing; weights that sum to one inside it would raise a
place at the edge to twice, in a corner to four times what it has in the middle, and words went to empty corners.

Its region is the pixels at 0.45 or more of its maximum (`region_share`; on the generated catalogue it aligned better than
0.6); patches of levels 3, 4 and 5 that it covers by half or more (`covered_share`) are aligned. A region of more than half of
the square (`most_covered`) aligns nothing: such a flat map is that of a word that is nowhere to be seen, as a brand is.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from kaleido_fast.data.catalogue.true_alignment import ALIGNED_GRIDS
from kaleido_fast.kernels.geometry import GRIDS, offset_of_grid

PIECE = 1 << 23  # pixels of maps brought to full size at once


def map_regions(
    maps: Tensor, image_size: int, *, region_share: float, covered_share: float, most_covered: float, smoothing: float = 0.0,
    grids: Sequence[int] = GRIDS,
) -> tuple[Tensor, Tensor, Tensor]:
    """Aligned patches of attention maps, and the one patch that each looks at most.

    Args:
        maps: (N, side, side) fp32, not negative.
        image_size: S.
        most_covered: share of the square's pixels; a region of more aligns nothing.
        smoothing: sigma of the Gaussian, in sides of the square.
        grids: the aligned ones of them are looked at.
    Returns:
        (N,) int64, bit p for an aligned position p; (N,) int64, the position whose mean is the greatest (0 where no grid is
        aligned); (N,) bool, whether the region is too wide to align anything.
    """
    widen = _widening(maps.shape[-1], image_size, smoothing).to(maps.device)
    pieces = maps.float().split(max(1, PIECE // image_size**2))
    parts = [_regions(widen @ piece @ widen.T, region_share, covered_share, most_covered, grids) for piece in pieces]
    masks, strongest, too_wide = zip(*parts, strict=True)
    return torch.cat(masks), torch.cat(strongest), torch.cat(too_wide)


def widened(maps: Tensor, image_size: int, smoothing: float) -> Tensor:
    """(N, side, side) maps -> (N, S, S), the smoothed maps whose regions are taken."""
    widen = _widening(maps.shape[-1], image_size, smoothing).to(maps.device)
    return widen @ maps.float() @ widen.T


def _regions(
    full: Tensor, region_share: float, covered_share: float, most_covered: float, grids: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    size = full.shape[-1]
    inside = (full >= region_share * full.amax(dim=(1, 2), keepdim=True)).float()
    too_wide = inside.sum(dim=(1, 2)) > most_covered * size**2  # sums of ones are exact
    masks = torch.zeros(len(full), dtype=torch.int64, device=full.device)
    strongest, most = torch.zeros_like(masks), torch.full((len(full),), -1.0, device=full.device)
    for grid in ALIGNED_GRIDS:
        if grid not in grids:
            continue
        offset = offset_of_grid(grids, grid)
        covered = cell_sums(inside, grid) >= covered_share * (size // grid) ** 2
        bits = torch.tensor([_bit(offset + slot) for slot in range(grid * grid)], device=full.device)
        masks |= (covered * bits).sum(dim=1)
        mean, slot = (cell_sums(full, grid) / (size // grid) ** 2).max(dim=1)
        strongest = torch.where(mean > most, offset + slot, strongest)
        most = torch.maximum(mean, most)
    return masks.masked_fill(too_wide, 0), strongest, too_wide


def _widening(side: int, size: int, smoothing: float) -> Tensor:
    """(S, side): what brings each axis of a map to pixels, smoothed by a Gaussian."""
    bilinear = interpolate(torch.eye(side)[None], size, mode="linear", align_corners=False)[0].T
    if not smoothing:
        return bilinear
    distance = torch.arange(size)[:, None] - torch.arange(size)
    gaussian = torch.exp(-0.5 * (distance / (smoothing * size)) ** 2)
    return gaussian / gaussian.sum(dim=1).max() @ bilinear


def cell_sums(maps: Tensor, grid: int) -> Tensor:
    """(N, S, S) -> (N, grid * grid), sums over the cells row by row."""
    size = maps.shape[-1] // grid
    return maps.view(-1, grid, size, grid, size).sum(dim=(2, 4)).flatten(1)


def _bit(position: int) -> int:
    """1 << position as a signed 64-bit number."""
    return (1 << position) - (1 << 64 if position == 63 else 0)
