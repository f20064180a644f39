"""How well alignments meet the truth: (word, patch) pairs, and where the strongest patch lies.

Beside what was found stand two who know nothing of the words and name as many patches for each: patches drawn at random
(their expected score), and those nearest to the middle of the square.
"""

from collections.abc import Sequence

import numpy as np

from kaleido_fast.data.catalogue.true_alignment import ALIGNED_GRIDS
from kaleido_fast.kernels.geometry import GRIDS, level_offsets


def central_positions() -> list[int]:
    """The positions of grids 3, 4 and 5, nearest to the middle of the square first; ties by position."""
    by_distance = []
    for grid, offset in zip(GRIDS, level_offsets(GRIDS), strict=True):
        if grid in ALIGNED_GRIDS:
            for slot in range(grid * grid):
                x, y = (slot % grid + 0.5) / grid - 0.5, (slot // grid + 0.5) / grid - 0.5
                by_distance.append((round(x * x + y * y, 9), offset + slot))
    return [position for _, position in sorted(by_distance)]


CENTRAL = tuple(central_positions())
COLUMNS = ("words", "aligned", "pointing", "pointing_random", "pointing_centre", "true", "predicted", "hits", "hits_random",
           "hits_centre")


class PairScore:
    """Sums over words."""

    def __init__(self) -> None:
        self._sums = np.zeros(len(COLUMNS))

    def add(self, truth: int, touched: int, predicted: int | None, strongest: int) -> None:
        """Take one word.

        Args:
            truth: bit p for the positions of which at least half lies in the part, touched: any of it.
            predicted: bit p for the positions found; None: the word was not aligned.
            strongest: the position it looks at most.
        """
        count = (predicted or 0).bit_count()
        central = sum(1 << position for position in CENTRAL[:count])
        aligned = predicted is not None
        self._sums += [
            1, aligned, aligned and touched >> strongest & 1, aligned * touched.bit_count() / len(CENTRAL),
            aligned and touched >> CENTRAL[0] & 1, truth.bit_count(), count, (truth & (predicted or 0)).bit_count(),
            count * truth.bit_count() / len(CENTRAL), (truth & central).bit_count(),
        ]

    def result(self) -> dict[str, float]:
        """Shares in 0..1; pointing is a share of the aligned words, the pairs are those of all words."""
        sums = dict(zip(COLUMNS, self._sums.tolist(), strict=True))
        pairs, aligned = sums["true"] + sums["predicted"], max(sums["aligned"], 1)
        return {
            "pointing_accuracy": sums["pointing"] / aligned, "precision": sums["hits"] / max(sums["predicted"], 1),
            "recall": sums["hits"] / max(sums["true"], 1), "f1": 2 * sums["hits"] / max(pairs, 1),
            "f1_random": 2 * sums["hits_random"] / max(pairs, 1), "f1_centre": 2 * sums["hits_centre"] / max(pairs, 1),
            "pointing_random": sums["pointing_random"] / aligned, "pointing_centre": sums["pointing_centre"] / aligned,
            "words": int(sums["words"]), "aligned_share": sums["aligned"] / max(sums["words"], 1),
            "patches_per_word": sums["predicted"] / max(sums["words"], 1),
        }


def merged(scores: Sequence[PairScore]) -> PairScore:
    """All of them together."""
    out = PairScore()
    for score in scores:
        out._sums += score._sums
    return out
