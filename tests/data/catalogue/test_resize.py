"""The resize without DALI: bit for bit as DALI's on a CPU, and near the exact filter."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from kaleido_fast.data.batches.dali import SquareDecoder
from kaleido_fast.data.batches.jpeg_batch import JpegBatch
from kaleido_fast.data.catalogue.resize import resize_square
from tests.data import twins

SIDES = (16, 17, 23, 24, 46, 48, 56, 60, 63, 80, 84, 96, 100, 120, 121, 180, 200, 240, 241, 333, 480, 640)


def _square(side: int) -> tuple[bytes, np.ndarray]:
    """A JPEG of flat blocks, whose values lie in the middle between two far more often than a photograph's."""
    blocks = np.random.default_rng(side).integers(150, 256, (side // 4 + 1, side // 4 + 1, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(blocks.repeat(4, axis=0).repeat(4, axis=1)[:side, :side]).save(out, "JPEG", quality=95, subsampling=0)
    return out.getvalue(), np.asarray(Image.open(out))


@pytest.mark.parametrize("size", [25, 60, 120, 240])
def test_every_bit_is_dalis(size: int) -> None:
    squares = [_square(side) for side in SIDES]
    sides = np.array(SIDES, np.int32)[:, None].repeat(2, axis=1)
    batch = JpegBatch([data for data, _ in squares], np.zeros_like(sides), sides, np.zeros((len(SIDES), 3), np.uint8))
    decoder = SquareDecoder(lambda _: (None, batch), len(SIDES), size, torch.device("cpu"), threads=1, prefetch=1)
    _, made, broken = next(iter(decoder))
    assert not broken
    other = [side for side, (_, square), theirs in zip(SIDES, squares, made.numpy(), strict=True)
             if not np.array_equal(resize_square(square, size), theirs)]
    assert other == []


@pytest.mark.parametrize("side", [16, 59, 60, 61, 97, 130])
def test_values_are_the_exact_filters_rounded(side: int) -> None:
    _, square = _square(side)
    made = resize_square(square, 60)
    assert made.dtype == np.uint8 and made.shape == (60, 60, 3)
    assert np.abs(made - twins.resize(square, 60)).max() <= 0.5 + 1e-3
