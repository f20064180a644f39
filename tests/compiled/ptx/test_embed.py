"""embed as it is compiled for a GPU, forward and backward, run on a CPU: against the reference in float64."""

from collections.abc import Callable
from types import ModuleType

import pytest
import torch

from kaleido_fast.bench.ptx.driver import EmulatedDevice
from kaleido_fast.kernels import embed_backward_triton, embed_triton, row_sums_triton
from kaleido_fast.kernels.embed import embed_reference
from tests.compiled.ptx.cases import named
from tests.kernels import test_embed_backward_triton as gradients, test_embed_triton as rows, test_row_sums_triton as sums
from tests.kernels.embed_cases import BF16, KERNEL_CASES, KEY, assert_near, doubled, kernel_case, rounding

# Of the tables' dtype and, as training has them under bf16, of half that width.
IN_BF16 = ("ragged, spare rows, autocast's dtypes", "base width, fp16")
QUICK = {IN_BF16[0], f"{IN_BF16[0]}, in bf16", "one sample, two tokens", "bf16, no dropout"}
Case = tuple[str, torch.dtype | None]
CASES = named({name: (name, None) for name in KERNEL_CASES} | {f"{name}, in bf16": (name, BF16) for name in IN_BF16}, QUICK)


@pytest.mark.parametrize("case", CASES)
def test_rows(device: EmulatedDevice, case: Case) -> None:
    name, dtype = case
    inputs, num_packed, grids, dropout = kernel_case(name)
    packed, cumulative = rows.run(embed_triton, inputs, num_packed, grids, dropout, dtype=dtype)
    assert packed.dtype == (dtype or inputs.dtype)
    truth, ends = embed_reference(doubled(inputs), num_packed, grids, dropout, KEY)
    assert torch.equal(cumulative, ends) and torch.equal(packed == 0, truth == 0)
    assert_near(packed, truth, rounding(packed.dtype) / 2 * 1.0001 * truth.abs(), name)  # half an ulp: a device rounds


@pytest.mark.parametrize("case", CASES)
def test_gradients(device: EmulatedDevice, case: Case) -> None:
    gradients.assert_right(embed_backward_triton, *case)


OF_ROWS = (rows.test_no_samples_and_no_places, rows.test_rows_of_equal_values_huge_ones_and_nan,
           rows.test_turned_tables_are_copied, rows.test_what_does_not_fit_n_is_not_written,
           rows.test_ids_and_sources_without_a_row_read_as_zeros, rows.test_more_samples_than_one_pass_over_the_lengths,
           rows.test_tables_and_packed_rows_beyond_two_to_the_31_values)
OF_GRADIENTS = (gradients.test_turned_inputs_and_an_expanded_gradient_are_copied,
                gradients.test_a_place_that_no_sample_reaches_gets_zeros_whatever_its_row_holds,
                gradients.test_ids_and_sources_without_a_row_have_no_gradient, gradients.test_ids_behind_a_length_count_nowhere,
                gradients.test_rows_beyond_two_to_the_31_values)
OF_SUMS = (sums.test_a_key_without_a_row_in_the_table_writes_nowhere, sums.test_the_order_of_a_sum_is_that_of_the_rows_given,
           sums.test_rows_beyond_two_to_the_31_values)
FURTHER = {f"{name}: {test.__name__.removeprefix('test_')}": (module, test) for name, module, tests in (
    ("rows", embed_triton, OF_ROWS), ("gradients", embed_backward_triton, OF_GRADIENTS), ("sums", row_sums_triton, OF_SUMS))
    for test in tests}
QUICK_FURTHER = {"rows: what_does_not_fit_n_is_not_written", "gradients: ids_behind_a_length_count_nowhere"}


@pytest.mark.parametrize("case", named(FURTHER, QUICK_FURTHER))
def test_as_interpreted(device: EmulatedDevice, case: tuple[ModuleType, Callable[[ModuleType], None]]) -> None:
    module, test = case
    test(module)


@pytest.mark.parametrize("name", named({name: name for name in sums.KEYS}, {"one key", "shuffled, with gaps and -1"}))
def test_row_sums(device: EmulatedDevice, name: str) -> None:
    sums.assert_sums(row_sums_triton, sums.KEYS[name])
