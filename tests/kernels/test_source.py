"""Where a photograph as it is reads its patches, beside the rows of a plan."""

import torch

from kaleido_fast.kernels.source import photograph_source, unturned_positions
from kaleido_fast.kernels.tasks import TaskRule
from tests.kernels.plan_cases import FIVE

CPU = torch.device("cpu")
GRIDS = (1, 2, 3, 4, 5)


def test_the_papers_turned_patch_is_read_behind_all_rows() -> None:
    source = photograph_source(3, GRIDS, FIVE, CPU)
    assert source[:, 0].tolist() == [3 * 57, 3 * 57 + 1, 3 * 57 + 2]
    assert source[:, 1:].tolist() == [[b * 57 + p for p in range(1, 55)] for b in range(3)]


def test_a_turned_level_of_several_patches() -> None:
    turned = TaskRule(2, "turn")
    assert unturned_positions(GRIDS, [turned]).tolist() == [1, 2, 3, 4]
    source = photograph_source(2, GRIDS, [turned], CPU)
    assert source[:, 1:5].tolist() == [[110, 111, 112, 113], [114, 115, 116, 117]]
    assert source[:, [0, 5, 54]].tolist() == [[0, 5, 54], [55, 60, 109]]


def test_without_turns_every_position_reads_its_own_row() -> None:
    assert photograph_source(2, (1, 2), (), CPU).tolist() == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
