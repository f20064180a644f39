"""The designs that `cut` is compared with compute the same patches: figures of wrong code would compare nothing."""

from types import ModuleType

import pytest
import torch
from torch import Tensor

from kaleido_fast.kernels.cut import cut_reference
from kaleido_fast.kernels.cut_filter import normalisation, num_taps, triangle_taps
from tests.kernels.interpreter import interpreted

S, P, GRID = 48, 16, 2
SIDE = S // GRID
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
LIFT = 2048.0


def design(name: str) -> ModuleType:
    """The interpreted file of benchmarks/designs."""
    return interpreted(name, "benchmarks.designs")


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, S, S, 3), dtype=torch.uint8, generator=generator)


def assert_equals_the_reference(out: Tensor, images: Tensor) -> None:
    none = torch.zeros(2, 0, dtype=torch.int32)
    truth = cut_reference(images, none, none, grids=(GRID,), tasks=(), patch_size=P, mean=MEAN, std=STD, dtype=torch.float64)
    assert (out.permute(0, 3, 1, 2).double() - truth).abs().max() <= 2e-6 * truth.abs().max()


def test_taps_in_two_dimensions(images: Tensor) -> None:
    scale, shift = normalisation(MEAN, STD)
    first, weights = triangle_taps(SIDE, P, num_taps(SIDE, P))
    along = (weights[:, None, :] * scale[:, None]).flatten(0, 1).T
    out = torch.full((2 * GRID * GRID, P, P, 3), torch.nan)
    design("cut_direct_triton").direct_kernel[(len(out), 1)](
        images, first.int(), first.int(), weights.T.float().contiguous(), along.float().contiguous(),
        shift.repeat(P).float(), out, S=S, P=P, GRID=GRID, TAPS=weights.shape[1], VALUES=1024,
    )
    assert_equals_the_reference(out, images)


def test_two_matrix_products(images: Tensor) -> None:
    scale, shift = normalisation(MEAN, STD)
    first, weights = triangle_taps(SIDE, P, num_taps(SIDE, P))
    columns = first[:, None] + torch.arange(weights.shape[1])
    dense = torch.zeros(P, SIDE, dtype=torch.float64).scatter_(1, columns, weights)
    along = torch.zeros(3 * SIDE, 64, dtype=torch.float64)
    along[:, : 3 * P] = torch.einsum("px,cd->xcpd", dense, torch.diag(scale)).reshape(3 * SIDE, 3 * P)
    shifts = torch.zeros(64)
    shifts[: 3 * P] = shift.repeat(P)
    out = torch.full((2 * GRID * GRID, P, P, 3), torch.nan)
    design("cut_products_triton").products_kernel[(len(out),)](
        images, _two_terms(dense), _two_terms(along), shifts, out,
        S=S, P=P, GRID=GRID, ROWS=16, COLUMNS=64, DEEP=16, WIDE=64,
    )
    assert_equals_the_reference(out, images)


def _two_terms(numbers: Tensor) -> Tensor:
    high = numbers.half()
    return torch.stack((high, ((numbers - high.double()) * LIFT).half()))
