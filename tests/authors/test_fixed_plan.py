"""Plans of samples whose transforms are done: who reads what, and where the clean features of greyed slots lie."""

import torch
from torch import Tensor

from kaleido_fast.authors.fixed_plan import FILE_TASKS, fixed_plan, rows_in_place
from kaleido_fast.kernels.plan_outputs import Plan
from kaleido_fast.kernels.plan_rules import IGNORED, NONE

GREY = torch.tensor([[8, 1], [3, 15], [NONE, NONE]], dtype=torch.int32)  # the last is a hole
BLANK = torch.tensor([[24, 0, 7], [1, 2, 3], [NONE, NONE, NONE]], dtype=torch.int32)


def _plan() -> Plan:
    labels = torch.tensor([1, 2, IGNORED], dtype=torch.int32)
    places = torch.tensor([[3, 1], [2, NONE], [NONE, NONE]], dtype=torch.int32)
    return fixed_plan(torch.zeros(3, 6, dtype=torch.int32), places, places, rotation=labels, permutation=labels,
                      camouflage=labels, grey_slots=GREY, blank_slots=BLANK)


def _stored() -> Tensor:
    """(3, 57, 1): row r of sample b is 100 b + r."""
    return (torch.arange(3)[:, None] * 100 + torch.arange(57)).float()[..., None]


def test_every_position_shows_what_the_file_has_there_but_blanks() -> None:
    drawn, stored = _plan(), _stored()
    rows = rows_in_place(stored, GREY)
    shown = torch.where(drawn.source < 0, -1.0, rows.flatten()[drawn.source.clamp(min=0).long()])
    expected = stored[:, :55, 0].clone()
    for sample in range(2):
        expected[sample, 30 + BLANK[sample].long()] = -1
    assert torch.equal(shown[:2], expected[:2]) and drawn.source.dtype == torch.int32
    assert (drawn.source[2] == 2 * 57 + torch.arange(55)).all()


def test_clean_features_lie_at_their_slots_in_the_order_of_the_file() -> None:
    rows = rows_in_place(_stored(), GREY)[..., 0]
    for sample in range(2):
        assert rows[sample, 14 + GREY[sample].long()].tolist() == [100 * sample + 55, 100 * sample + 56]
        assert rows[sample, 55:].tolist() == (100 * sample + 14 + GREY[sample]).tolist()
    assert torch.isfinite(rows[2]).all()


def test_masked_tokens_are_counted() -> None:
    assert _plan().num_masked.tolist() == [2, 1, 0]


def test_all_is_int32_as_in_a_drawn_plan() -> None:
    assert {value.dtype for value in _plan().tensors} == {torch.int32}


def test_labels_and_slots_are_the_files() -> None:
    drawn = _plan()
    assert drawn.tasks == FILE_TASKS and drawn.labels[:, :3].T.tolist() == [[1, 2, IGNORED]] * 3
    assert (drawn.labels[:, 3:] == IGNORED).all() and drawn.slots[:, 0].tolist() == [1, 2, NONE]
    assert torch.equal(drawn.slots[:, 1:], torch.cat([GREY, BLANK], dim=1))
