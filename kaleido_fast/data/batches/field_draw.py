"""Fields of a training text, dropped and shuffled by the host (SPEC 6): which of its tokens a sample gets, in which order."""

from dataclasses import dataclass

import numpy as np
import torch

from kaleido_fast.data.settings import DataSettings
from kaleido_fast.data.shards.fields import plausible_ranges
from kaleido_fast.data.shards.split import Split
from kaleido_fast.kernels.philox import FIELD, draw
from kaleido_fast.options import TEXT_FIELDS, OptionError


def require_fields(split: Split, settings: DataSettings) -> None:
    """Refuse (ValueError) to drop or shuffle the fields of texts that have none."""
    if settings.changes_fields and not split.manifest.fields:
        key = "data.field_dropout" if settings.field_dropout else "data.field_shuffle"
        raise OptionError(f"{key}: the texts in {split.folder} have no fields; run prepare with ", TEXT_FIELDS,
                          f", or leave {key} out")


@dataclass(frozen=True, slots=True)
class FieldDraw:
    """Draws for samples of one split; a function of the seed, the epoch, the sample and its text alone."""

    split: Split
    settings: DataSettings
    seed: int

    @classmethod
    def of(cls, split: Split, settings: DataSettings, seed: int | None) -> "FieldDraw | None":
        """None where texts stay whole.

        Args:
            seed: None for texts that training does not see.
        Raises:
            ValueError: fields are to be dropped or shuffled, and the texts have none.
        """
        if seed is None or not settings.changes_fields:
            return None
        require_fields(split, settings)
        return cls(split, settings, seed)

    def plausible(self, firsts: np.ndarray, texts: np.ndarray) -> np.ndarray:
        """(n,) bool: whether the fields of the samples `firsts` can be those of their table rows `texts`."""
        return plausible_ranges(self.split.fields(firsts), texts["num_tokens"])

    def places(
        self, firsts: np.ndarray, texts: np.ndarray, keys: np.ndarray, epochs: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Which tokens of a text a sample gets.

        Args:
            firsts: (n,) samples whose texts they are; texts: (n,) their table rows. A text is whole where its fields cannot be.
            keys: (n,) uint64 of the samples that get them; epochs: (n,) int64.
        Returns:
            (n, W) int64 places in the text's stored row, and (n,) int32 how many of them count.
        """
        ranges = self.split.fields(firsts).astype(np.int64)
        ranges[~plausible_ranges(ranges, texts["num_tokens"])] = 0
        has_tokens = ranges[..., 0] < ranges[..., 1]
        kept, order = self._kept_in_order(has_tokens, keys, epochs)
        places = np.tile(np.arange(texts["tokens"].shape[1]), (len(texts), 1))
        counts = texts["num_tokens"].astype(np.int32)
        whole = (kept == has_tokens).all(axis=1)
        for row, fields in enumerate(order):
            chosen = fields[: int(kept[row].sum())]
            if whole[row] and (np.diff(chosen) > 0).all():
                continue  # the text as it is, whatever stands between and behind its fields
            tokens = self._joined(ranges[row, chosen], int(counts[row]))
            places[row, : len(tokens)], counts[row] = tokens, len(tokens)
        return places, counts

    def _kept_in_order(self, has_tokens: np.ndarray, keys: np.ndarray, epochs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n, fields) bool which fields are kept, and (n, fields) numbers of fields, the kept ones first and in their order."""
        numbers = np.arange(has_tokens.shape[1])
        drop, priority, stay, _ = (word.numpy() for word in draw(
            self.seed, torch.from_numpy(epochs)[:, None], torch.from_numpy(np.ascontiguousarray(keys).view(np.int64))[:, None],
            FIELD, torch.from_numpy(numbers)))  # the index is the field's number
        stays = np.where(has_tokens, stay, -1).argmax(axis=1)[:, None] == numbers
        kept = has_tokens & (stays | (drop >= self.settings.field_dropout * 2**32))
        place = priority if self.settings.field_shuffle else np.broadcast_to(numbers, kept.shape)
        return kept, np.where(kept, place, 1 << 32).argsort(axis=1, kind="stable")

    @staticmethod
    def _joined(ranges: np.ndarray, num_tokens: int) -> list[int]:
        """Places of fields one behind the other, with a separator of the text between two: the one behind a field, or before
        it where it is the text's last."""
        places: list[int] = []
        for number, (begin, end) in enumerate(ranges.tolist()):
            places += range(begin, end)
            if number + 1 < len(ranges):
                places.append(end if end < num_tokens else begin - 1)
        return places
