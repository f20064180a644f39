"""cut as it is compiled for a GPU, run on a CPU: against the reference in float64, in fp32 and bf16."""

import pytest
import torch
from torch import Tensor

from kaleido_fast.bench.ptx.driver import EmulatedDevice
from kaleido_fast.kernels.cut import cut_reference
from kaleido_fast.kernels.cut_triton import cut_triton
from kaleido_fast.kernels.geometry import GRIDS
from kaleido_fast.kernels.tasks import TaskRule
from tests.compiled.ptx.cases import named
from tests.kernels import test_cut_triton as interpreted
from tests.kernels.cut_cases import GEOMETRIES, tasks_of
from tests.kernels.guards import Guards
from tests.kernels.plan_cases import FIVE
from tests.kernels.test_cut_triton import batch, options

Geometry = tuple[int, int, int, tuple[int, ...], int | tuple[TaskRule, ...]]


def assert_near(patches: Tensor, truth: Tensor) -> None:
    """fp32 to 1e-6 of the largest magnitude; what is narrower half an ulp away, for a device rounds."""
    half_ulp = {torch.float32: 0.0, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}[patches.dtype]
    assert ((patches.double() - truth).abs() <= 1e-6 * truth.abs().max() + truth.abs() * half_ulp).all()


def assert_is_reference(geometry: Geometry, dtype: torch.dtype) -> None:
    size, side, patch_size, grids, tasks = geometry
    rules = tasks_of(grids, tasks) if isinstance(tasks, int) else tasks
    tensors, given = batch(size, side, rules), options(grids, patch_size, rules)
    with Guards() as guards:  # outputs hold NaN until they are written
        patches = cut_triton(*map(guards.place, tensors), **given, dtype=dtype)
    assert patches.dtype == dtype
    assert_near(patches, cut_reference(*tensors, **given, dtype=torch.float64))


FIRST, *_ = NAMED = {" ".join(map(str, (*geometry[:4], number))): geometry for number, geometry in enumerate(GEOMETRIES)}


@pytest.mark.parametrize("geometry", named(NAMED, {FIRST}))
def test_patches_in_bf16(device: EmulatedDevice, geometry: Geometry) -> None:
    assert_is_reference(geometry, torch.bfloat16)


@pytest.mark.parametrize("device", [90], indirect=True)  # its stores alone are other than in bf16
@pytest.mark.parametrize("geometry", named(NAMED, {FIRST}))
def test_patches_in_fp32(device: EmulatedDevice, geometry: Geometry) -> None:
    assert_is_reference(geometry, torch.float32)


@pytest.mark.slow
def test_patches_in_fp16(device: EmulatedDevice) -> None:
    assert_is_reference(GEOMETRIES[0], torch.float16)


@pytest.mark.slow
@pytest.mark.parametrize("device", [90], indirect=True)  # test_issued.py runs it on all, without a look at the values
def test_the_base_shape(device: EmulatedDevice) -> None:
    assert_is_reference((1, 240, 48, GRIDS, FIVE), torch.bfloat16)


VIEWS = ("wide rows", "every other sample", "planes first", "flipped", "one image for all")


@pytest.mark.parametrize("view", named({view: view for view in VIEWS}, VIEWS[:1]))
def test_strided_images(device: EmulatedDevice, view: str) -> None:
    interpreted.test_strided_images(cut_triton, view)


@pytest.mark.slow
def test_far_addresses_and_a_slot_beyond_the_level(device: EmulatedDevice) -> None:
    interpreted.test_addresses_beyond_32_bits(cut_triton)
    interpreted.test_rows_too_far_apart_for_32_bits_are_copied(cut_triton)
    interpreted.test_a_slot_beyond_the_level_reads_its_last_cell(cut_triton)
