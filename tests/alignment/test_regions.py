"""Maps to patches, by hand."""

import torch

from kaleido_fast.alignment.regions import map_regions
from kaleido_fast.data.catalogue.locking import Lock
from kaleido_fast.data.catalogue.true_alignment import covered_positions

SIZE = 60
SHARES = {"region_share": 0.6, "covered_share": 0.5, "most_covered": 1.0}


def positions(mask: int) -> list[int]:
    return [position for position in range(55) if mask >> position & 1]


def one(heat: torch.Tensor, **shares: float) -> tuple[list[int], int]:
    masks, strongest, _ = map_regions(heat.unsqueeze(0), SIZE, **SHARES | shares)
    return positions(int(masks[0])), int(strongest[0])


def test_the_left_half() -> None:
    """Level 3's middle column is half covered, level 4's left two wholly, level 5's middle column by half."""
    heat = torch.zeros(SIZE, SIZE)
    heat[:, :30] = 1.0
    expected = [5 + 3 * row + column for row in range(3) for column in (0, 1)]
    expected += [14 + 4 * row + column for row in range(4) for column in (0, 1)]
    expected += [30 + 5 * row + column for row in range(5) for column in (0, 1, 2)]
    assert one(heat)[0] == expected
    heat[0, 29] = 0.0  # one pixel less: what was half covered in the first row is not any more
    found = one(heat)[0]
    assert set(expected) - set(found) == {5 + 1, 30 + 2}


def test_pixels_below_the_share_of_the_maximum_are_outside() -> None:
    heat = torch.full((SIZE, SIZE), 0.59)
    heat[:12, 48:] = 1.0  # slot 4 of level 5; of level 4's slot 3 it is 144 of 225 pixels, of level 3's slot 2 144 of 400
    assert one(heat) == ([14 + 3, 30 + 4], 30 + 4)
    heat[heat < 1] = 0.6
    assert len(one(heat)[0]) == 50
    assert one(heat, region_share=0.61)[0] == [14 + 3, 30 + 4]
    assert one(heat, region_share=0.61, covered_share=0.3)[0] == [5 + 2, 14 + 3, 30 + 4]


def test_a_coarse_map_is_brought_to_pixels_bilinearly() -> None:
    """Of 5 x 5 places one is 1. Between its centre and the next ones', 12 pixels away, it falls to 0 along both axes, so
    the region is {(1 - x/12)(1 - y/12) >= 0.6}: 88 pixels with the four plateaus of none; less than half of the cell's 144."""
    heat = torch.zeros(5, 5)
    heat[2, 3] = 1.0
    offsets = [(abs(x), abs(y)) for x in (i + 0.5 for i in range(-12, 12)) for y in (j + 0.5 for j in range(-12, 12))]
    peak = max((1 - x / 12) * (1 - y / 12) for x, y in offsets)
    inside = sum((1 - x / 12) * (1 - y / 12) >= 0.6 * peak for x, y in offsets)
    assert one(heat, covered_share=inside / 144)[0] == [30 + 13]
    assert one(heat, covered_share=(inside + 0.5) / 144)[0] == []
    assert one(heat)[1] == 30 + 13


def test_a_gaussian_widens_one_place() -> None:
    """sigma 6 pixels around the middle of a cell of 12: the region is a disc of radius 6 sqrt(2 ln(1 / 0.6)) = 6.06."""
    heat = torch.zeros(SIZE, SIZE)
    heat[29:31, 29:31] = 1.0
    disc = sum((x - 29.5) ** 2 + (y - 29.5) ** 2 <= 6.06**2 + 0.5 for x in range(SIZE) for y in range(SIZE))
    assert one(heat)[0] == []
    assert one(heat, smoothing=0.1, covered_share=(disc - 8) / 144)[0] == [30 + 12]
    assert one(heat, smoothing=0.1, covered_share=(disc + 8) / 144)[0] == []
    corner = torch.zeros(5, 5)
    corner[0, 0] = 1.0
    assert one(corner, smoothing=0.1)[1] == 30, "the square's edge does not drive it inwards"


def test_the_edge_is_as_good_as_the_middle() -> None:
    """A point at the edge or in the corner has the peak that it has in the middle, so one of 0.4 of another's is outside."""
    heat = torch.zeros(SIZE, SIZE)
    heat[30, 30] = 1.0
    for place in ((0, 0), (0, 30), (59, 59)):
        both = heat.clone()
        both[place] = 0.4
        asked = {"smoothing": 0.1, "covered_share": 0.08, "region_share": 0.45}
        assert one(both, **asked) == one(heat, **asked) and one(heat, **asked)[0]
        both[place] = 0.6
        assert len(one(both, **asked)[0]) > len(one(heat, **asked)[0])


def test_a_box_of_ones_has_the_patches_of_the_true_box() -> None:
    """The two roads from a box to patches agree, by area and by pixels; where a cell is covered by half, only to rounding."""
    generator, compared = torch.Generator().manual_seed(0), 0
    for _ in range(50):
        x, y = torch.sort(torch.randint(0, SIZE + 1, (2, 2), generator=generator)).values.tolist()
        if x[0] == x[1] or y[0] == y[1]:
            continue
        heat = torch.zeros(SIZE, SIZE)
        heat[y[0] : y[1], x[0] : x[1]] = 1.0
        mask = covered_positions(torch.tensor([x[0], y[0], x[1], y[1]]).numpy(), Lock(0, 0, SIZE, (0, 0, 0)))
        close = [one(heat, covered_share=share)[0] for share in (0.501, 0.499)]
        assert set(close[0]) <= set(positions(mask)) <= set(close[1])
        compared += len(close[0])
    assert compared > 100


def test_a_region_of_more_than_half_of_the_square_aligns_nothing() -> None:
    """Half of 60 x 60 is 1,800 pixels. With one pixel more nothing is aligned; where it looks at most is still known."""
    heat = torch.zeros(SIZE, SIZE)
    heat[:, :30] = 1.0
    heat[12:24, :12] = 2.0  # slot 5 of level 5; the rest stays inside at a share of 0.5
    wide = heat.clone()
    wide[0, 30] = 1.0
    shares = {"region_share": 0.5, "covered_share": 0.5, "most_covered": 0.5}
    masks, strongest, too_wide = map_regions(torch.stack([heat, wide]), SIZE, **shares)
    assert len(positions(int(masks[0]))) == 6 + 8 + 15 and int(masks[1]) == 0
    assert strongest.tolist() == [30 + 5] * 2 and too_wide.tolist() == [False, True]
    assert one(wide, **shares | {"most_covered": 1801 / 3600})[0] == positions(int(masks[0]))
    assert one(wide, **shares | {"region_share": 0.51})[0] == [30 + 5], "of the 144 pixels left level 5 has a patch"


def test_what_covers_the_whole_square_may_be_asked_for() -> None:
    flat = torch.ones(SIZE, SIZE)
    assert one(flat, most_covered=0.999) == ([], 5)
    assert len(one(flat)[0]) == 50


def test_many_maps_and_other_grids() -> None:
    heats = torch.rand(7, 15, 15, generator=torch.Generator().manual_seed(1))
    together, strongest, _ = map_regions(heats, SIZE, **SHARES)
    apart = [map_regions(heat.unsqueeze(0), SIZE, **SHARES) for heat in heats]
    assert together.tolist() == [int(mask) for mask, *_ in apart]
    assert strongest.tolist() == [int(place) for _, place, _ in apart]
    masks, strongest, _ = map_regions(heats, SIZE, **SHARES, grids=(6,))
    assert not masks.any() and not strongest.any()
