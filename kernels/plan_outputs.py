"""What a plan consists of, and the shapes of its parts."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from kaleido_fast.kernels.geometry import num_positions


class Plan(NamedTuple):
    """A batch's plan, all int32. A hole, a task that is off: turn 0, identity, slots NONE, label IGNORED."""

    rotation: Tensor  # (B,) quarter turns, counter-clockwise
    permutation: Tensor  # (B,) index into PERMUTATIONS
    camouflage_slot: Tensor  # (B,)
    camouflage_label: Tensor  # (B,) the slot; IGNORED without donor
    donor: Tensor  # (B,) row of the batch; NONE without
    donor_slot: Tensor  # (B,) its level-3 slot; NONE without
    grey_slots: Tensor  # (B, G) ascending
    blank_slots: Tensor  # (B, Z) ascending
    source: Tensor  # (B, K) encoded row of each position, b * (K + G) + row; NONE: blank
    masked_tokens: Tensor  # (B, T) ids after masking
    masked_positions: Tensor  # (B, M) ascending, then NONE; M = max_masked_tokens
    masked_labels: Tensor  # (B, M) original ids, then IGNORED
    num_masked: Tensor  # (B,)


def output_shapes(
    batch: int, width: int, grids: Sequence[int], num_grey: int, num_blank: int, max_masked_tokens: int
) -> Plan:
    """A Plan of shapes, for B = `batch` and T = `width`."""
    one, masked = (batch,), (batch, max_masked_tokens)
    return Plan(
        rotation=one, permutation=one, camouflage_slot=one, camouflage_label=one, donor=one, donor_slot=one,
        grey_slots=(batch, num_grey), blank_slots=(batch, num_blank), source=(batch, num_positions(grids)),
        masked_tokens=(batch, width), masked_positions=masked, masked_labels=masked, num_masked=one,
    )
