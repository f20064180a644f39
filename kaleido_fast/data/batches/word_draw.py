"""Word pieces of the text alone that contrast does not see in an epoch, drawn by the host (SPEC 6's table, stream 7)."""

from dataclasses import dataclass

import numpy as np
import torch

from kaleido_fast.data.settings import DataSettings
from kaleido_fast.kernels.philox import WORD, draw


@dataclass(frozen=True, slots=True)
class WordDraw:
    """Draws for samples; a function of the seed, the epoch, the sample and the piece's place alone."""

    dropout: float  # chance that a piece is left out
    seed: int

    @classmethod
    def of(cls, settings: DataSettings, seed: int | None) -> "WordDraw | None":
        """None where texts stay whole; `seed` is None for texts that training does not see."""
        return None if seed is None or not settings.word_dropout else cls(settings.word_dropout, seed)

    def kept(
        self, words: np.ndarray, counts: np.ndarray, keys: np.ndarray, epochs: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """What is left of texts; of each that has any the piece with the greatest word 1 always.

        Args:
            words: (n, W) ids without special ones; counts: (n,) how many of each row count.
            keys: (n,) uint64 of the samples; epochs: (n,) int64.
        Returns:
            (n, W) ids, those that stay first and in their order, and (n,) int32 how many.
        """
        places = np.arange(words.shape[1])
        drop, priority, *_ = (word.numpy() for word in draw(
            self.seed, torch.from_numpy(epochs)[:, None], torch.from_numpy(np.ascontiguousarray(keys).view(np.int64))[:, None],
            WORD, torch.from_numpy(places)))
        is_word = places < counts[:, None]
        stays = np.where(is_word, priority, -1).argmax(axis=1)[:, None] == places
        kept = is_word & (stays | (drop >= self.dropout * 2**32))
        order = np.argsort(~kept, axis=1, kind="stable")
        return np.take_along_axis(words, order, axis=1), kept.sum(axis=1).astype(np.int32)
