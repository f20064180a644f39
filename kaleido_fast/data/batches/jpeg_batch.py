"""What is decoded: the bytes of a batch's photographs, and the square that is cut of each."""

from dataclasses import dataclass

import numpy as np

GREY = 128  # of a hole's picture


@dataclass(frozen=True, slots=True)
class JpegBatch:
    """What DALI needs of a batch."""

    data: list[bytes]
    start: np.ndarray  # (B, 2) int32 top and left of the square
    side: np.ndarray  # (B, 2) int32 its height and width
    fill: np.ndarray  # (B, 3) uint8

    def one(self, index: int) -> "JpegBatch":
        """The batch of one sample alone."""
        sample = slice(index, index + 1)
        return JpegBatch(self.data[sample], self.start[sample], self.side[sample], self.fill[sample])
