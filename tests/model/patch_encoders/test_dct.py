"""The dct encoder against SciPy's transform, and the scale of its features on photographs."""

import numpy as np
import pytest
import torch
from scipy.fft import dctn

from kaleido_fast.model.patch_encoders.dct import YCBCR, DctEncoder, dct_scale

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.mark.parametrize("size", [8, 12, 24])
def test_equals_scipy(size: int) -> None:
    pixels = np.random.default_rng(size).integers(0, 256, (5, 3, size, size)).astype(np.float64)
    normalised = (pixels / 255 - np.array(MEAN)[:, None, None]) / np.array(STD)[:, None, None]
    features = DctEncoder(size, MEAN, STD)(torch.from_numpy(normalised).float()).view(5, 3, 8, 8).numpy()
    planes = np.einsum("dc,rchw->rdhw", np.array(YCBCR), pixels)
    expected = dctn(planes, axes=(2, 3), norm="ortho")[:, :, :8, :8] / size
    expected[:, 0, 0, 0] -= 205.0
    np.testing.assert_allclose(features, expected / dct_scale().numpy(), atol=2e-4)


def test_it_is_frozen_and_refuses_tiny_patches() -> None:
    encoder = DctEncoder(8, MEAN, STD)
    assert not list(encoder.parameters()) and not encoder.state_dict()
    with pytest.raises(ValueError, match="kaleido.patch_size=7: the dct encoder needs at least 8"):
        DctEncoder(7, MEAN, STD)
