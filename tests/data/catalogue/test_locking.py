"""Locking by hand-worked cases (SPEC 2.1)."""

import numpy as np
import pytest

from kaleido_fast.data.catalogue.locking import Lock, crop_locked, find_foreground, frame_colour, lock


def _plain(width: int, height: int, colour=(250, 248, 245)) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


@pytest.mark.parametrize(
    ("size", "box", "expected"),
    [
        ((100, 100), (20, 30, 60, 90), (7, 27, 66)),  # 40 x 60 grown by 2 and 3: 66 high
        ((100, 100), (0, 0, 100, 100), (-5, -5, 110)),
        ((100, 60), (90, 0, 100, 20), (84, -1, 22)),  # grown by (10+10)//20 = 1 and (20+10)//20 = 1
        ((50, 80), None, (-15, 0, 80)),  # nothing found: the whole photograph, not grown
        ((8, 8), None, (-4, -4, 16)),  # never below 16
        ((101, 100), (10, 10, 11, 12), (2, 3, 16)),
    ],
)
def test_squares(size, box, expected) -> None:
    square = lock(_plain(*size), box)
    assert (square.left, square.top, square.side) == expected


def test_fill_is_the_lower_median_of_the_frame_each_pixel_once() -> None:
    image = np.zeros((3, 4, 3), np.uint8)
    frame = [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 3), (2, 0), (2, 1), (2, 2), (2, 3)]
    for value, (y, x) in enumerate(frame):
        image[y, x] = (value, 10 * value, 100 - value)
    image[1, 1:3] = 255
    assert frame_colour(image) == (4, 40, 95)  # of ten values the fifth smallest
    assert frame_colour(image[:1, :1]) == (0, 0, 100)


def test_crop_fills_what_lies_outside() -> None:
    image = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    out = crop_locked(image, Lock(-2, 1, 16, (9, 8, 7)))
    assert out.shape == (16, 16, 3)
    assert np.array_equal(out[:3, 2:7], image[1:4])
    out[:3, 2:7] = (9, 8, 7)
    assert (out == (9, 8, 7)).all()


@pytest.mark.parametrize("colour", [(30, 30, 160), (225, 222, 218)])
@pytest.mark.parametrize("size", [(224, 224), (900, 1200)])
def test_finds_a_product_on_a_plain_background(colour, size) -> None:
    width, height = size
    image = _plain(width, height).astype(int)
    image[height // 4 : height // 2, width // 3 : width // 2] = colour
    image += np.random.default_rng(0).integers(-2, 3, image.shape)
    found = find_foreground(image.clip(0, 255).astype(np.uint8))
    expected = (width // 3, height // 4, width // 2, height // 2)
    assert np.abs(np.array(found) - expected).max() <= max(2, width // 80)


def test_a_gradient_is_still_a_background() -> None:
    image = _plain(120, 120).astype(float) - np.linspace(0, 40, 120)[:, None, None]
    image[40:80, 50:90] = (10, 90, 10)
    assert np.abs(np.array(find_foreground(image.astype(np.uint8))) - (50, 40, 90, 80)).max() <= 2


def test_nothing_is_found_where_nothing_is_or_all_is_noise() -> None:
    assert find_foreground(_plain(100, 100)) is None
    assert find_foreground(np.random.default_rng(0).integers(0, 256, (100, 100, 3), dtype=np.uint8)) is None
