"""cut against a triangle filter written out in NumPy, float64."""

import numpy as np
import pytest
import torch

from kaleido_fast.kernels.cut import cut
from kaleido_fast.kernels.geometry import level_offsets

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)


def _filter(size: int, out: int) -> np.ndarray:
    """(out, size) weights of the antialiased triangle filter; taps beyond the edge are dropped, the rest sums to one."""
    scale = size / out
    reach = max(scale, 1.0)
    centre = (np.arange(out) + 0.5) * scale
    distance = np.abs(np.arange(size) + 0.5 - centre[:, None]) / reach
    weights = np.clip(1 - distance, 0, None)
    return weights / weights.sum(axis=1, keepdims=True)


def _patch(image: np.ndarray, n: int, slot: int, size: int) -> np.ndarray:
    """(P, P, 3) float64 of one cell, 0..255."""
    cell = image.shape[0] // n
    row, column = divmod(slot, n)
    pixels = image[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell].astype(np.float64)
    weights = _filter(cell, size)
    return np.einsum("yi,ijc,xj->yxc", weights, pixels, weights)


def _expected(image: np.ndarray, turns: int, greys: list[int], grids, size: int) -> np.ndarray:
    rows = [_patch(image, n, slot, size) for n in grids for slot in range(n * n)]
    if 1 in grids:
        place = level_offsets(grids)[list(grids).index(1)]
        rows[place] = np.rot90(rows[place], turns)
    for slot in greys:
        luma = _patch(image, 4, slot, size) @ np.array([0.299, 0.587, 0.114])
        rows.append(np.repeat(luma[..., None], 3, axis=2))
    return (np.stack(rows) / 255 - np.array(MEAN)) / np.array(STD)


def _images(batch: int, side: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(side)
    return torch.randint(0, 256, (batch, side, side, 3), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(
    ("batch", "side", "size", "grids", "greys"),
    [
        (4, 60, 12, (1, 2, 3, 4, 5), 2),  # shrinks level 1, leaves level 5 as it is
        (1, 120, 24, (1, 2, 3, 4, 5), 2),
        (2, 60, 17, (1, 2, 3, 4, 5), 0),  # not a power of two; enlarges level 5
        (2, 64, 11, (8,), 0),
        (3, 24, 9, (2, 4), 3),  # no level to turn
    ],
)
def test_equals_the_written_out_filter(batch, side, size, grids, greys) -> None:
    images = _images(batch, side)
    rotation = torch.arange(batch, dtype=torch.int32) % 4 if 1 in grids else torch.zeros(batch, dtype=torch.int32)
    slots = torch.stack([torch.randperm(16)[:greys].sort().values for _ in range(batch)]).int()
    out = cut(images, rotation, slots, grids=grids, patch_size=size, mean=MEAN, std=STD, dtype=torch.float64)
    rows = sum(n * n for n in grids) + greys
    assert out.shape == (batch * rows, 3, size, size) and out.is_contiguous(memory_format=torch.channels_last)
    for b in range(batch):
        expected = _expected(images[b].numpy(), int(rotation[b]), slots[b].tolist(), grids, size)
        actual = out[b * rows : (b + 1) * rows].permute(0, 2, 3, 1).numpy()
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-10)
    single = cut(images, rotation, slots, grids=grids, patch_size=size, mean=MEAN, std=STD)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), out, rtol=0, atol=2e-5)


def test_a_cell_never_sees_its_neighbour() -> None:
    images = _images(1, 60)
    zero, none = torch.zeros(1, dtype=torch.int32), torch.zeros(1, 0, dtype=torch.int32)
    before = cut(images, zero, none, grids=(1, 2, 3, 4, 5), patch_size=12, mean=MEAN, std=STD)
    changed = images.clone()
    changed[0, :30, :30] = 255 - changed[0, :30, :30]  # cell 0 of level 2
    after = cut(changed, zero, none, grids=(1, 2, 3, 4, 5), patch_size=12, mean=MEAN, std=STD)
    same = (before == after).flatten(1).all(1)
    assert not same[1] and same[2:5].all()


def test_non_contiguous_images_give_the_same() -> None:
    images = _images(2, 60)
    wide = torch.zeros(2, 60, 120, 3, dtype=torch.uint8)
    wide[:, :, ::2] = images
    zero, none = torch.zeros(2, dtype=torch.int32), torch.zeros(2, 0, dtype=torch.int32)
    options = {"grids": (1, 2), "patch_size": 8, "mean": MEAN, "std": STD}
    assert torch.equal(cut(wide[:, :, ::2], zero, none, **options), cut(images, zero, none, **options))


@pytest.mark.parametrize(
    ("images", "greys", "grids", "message"),
    [
        (torch.zeros(1, 60, 50, 3, dtype=torch.uint8), 0, (1,), r"must be \(B, S, S, 3\) uint8"),
        (torch.zeros(1, 60, 60, 3), 0, (1,), r"torch.float32 must be \(B, S, S, 3\) uint8"),
        (torch.zeros(1, 61, 61, 3, dtype=torch.uint8), 0, (1, 2), "must be a multiple of every grid"),
        (torch.zeros(1, 60, 60, 3, dtype=torch.uint8), 1, (1, 2), "no level of grid 4"),
    ],
)
def test_wrong_input_is_named(images, greys, grids, message) -> None:
    with pytest.raises(ValueError, match=message):
        cut(images, torch.zeros(1, dtype=torch.int32), torch.zeros(1, greys, dtype=torch.int32), grids=grids, patch_size=8,
            mean=MEAN, std=STD)


def test_operator_contract() -> None:
    arguments = (_images(1, 12), torch.ones(1, dtype=torch.int32), torch.zeros(1, 2, dtype=torch.int32), [1, 4], 8,
                 list(MEAN), list(STD), torch.float32)
    torch.library.opcheck(torch.ops.kaleido_fast.cut.default, arguments)
