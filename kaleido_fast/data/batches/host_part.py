"""The host's part of a batch: which samples, their texts drawn (ITM), their lengths; holes for what cannot be used."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kaleido_fast.data.batches.batch import Batch, HostBatch
from kaleido_fast.data.batches.itm import TextDraw
from kaleido_fast.data.batches.upload import Upload
from kaleido_fast.data.settings import DataSettings
from kaleido_fast.data.shards.split import REPAIR, Split
from kaleido_fast.data.shards.token_rows import token_rows

Order = Callable[[int], tuple[np.ndarray, np.ndarray]]  # samples (-1: absent) and epochs of the i-th batch


@dataclass(frozen=True, slots=True)
class HostPart:
    """All of a batch but its pictures or features; NumPy arrays."""

    host: HostBatch
    rows: np.ndarray  # (B,) of the table
    tokens: np.ndarray  # (B, T) int32
    alignment: np.ndarray  # (B, T) int64
    epochs: np.ndarray  # (B,) int64

    def batch(self, upload: Upload, **patches: object) -> Batch:
        """The batch on the upload's device; `patches`: images or encoded rows, there already."""
        host = self.host
        there = upload({
            "tokens": self.tokens, "lengths": host.lengths, "alignment": self.alignment,
            "keys": self.rows["key"].view(np.int64), "image_products": host.image_products,
            "text_products": host.text_products, "match": host.match, "present": host.present, "epochs": self.epochs})
        return Batch(host=host, **there, **{"images": None} | patches)


class HostParts:
    """Makes them, for one worker.

    Args:
        seed: of the texts drawn; None: every text is the sample's own.
        holes: takes the samples that cannot be used, and why.
    """

    def __init__(
        self, split: Split, settings: DataSettings, seed: int | None, order: Order, holes: dict[str, str] | None
    ) -> None:
        self._split, self._settings, self._order = split, settings, order
        self._draw = None if seed is None else TextDraw(split, settings, seed)
        self.holes: dict[str, str] = {} if holes is None else holes
        split.require_alignment(settings.alignment)

    def make(self, number: int, fetch: Callable[[np.ndarray, np.ndarray], None]) -> HostPart:
        """Batch `number`; `fetch(samples, present)` reads what is shown of them and clears `present` where it cannot."""
        samples, epochs = self._order(number)
        present = samples >= 0
        rows = self._split.rows(np.maximum(samples, 0))
        self._drop_lies(rows, samples, present, "its row in the table")
        fetch(samples, present)
        own = rows["product"].astype(np.int64)
        text_products, match = (own.copy(), np.ones(len(samples), bool)) if self._draw is None else \
            self._draw.products(rows, epochs)
        tokens, lengths, alignment = self._text(text_products, samples, present)
        host = HostBatch(samples, own, text_products, lengths, match, present)
        return HostPart(host, rows, tokens, alignment, epochs)

    def note(self, sample: int, reason: str) -> None:
        """Name a hole."""
        self.holes[f"{self._split.name} sample {sample}"] = reason

    def _drop_lies(self, rows: np.ndarray, samples: np.ndarray, present: np.ndarray, what: str) -> None:
        """Make holes of samples whose `rows` hold numbers that cannot be, and clear those rows."""
        lies = ~self._split.plausible(rows)
        rows[lies] = np.zeros(1, rows.dtype)
        for index in np.flatnonzero(lies & present):
            present[index] = False
            self.note(int(samples[index]), f"{what} holds numbers that cannot be; {REPAIR}")

    def _text(
        self, products: np.ndarray, samples: np.ndarray, present: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(B, T) ids with [CLS] and [SEP], (B,) lengths, (B, T) alignment of the texts' products; holes are empty."""
        vocabulary, most = self._split.manifest.vocabulary, self._settings.max_tokens
        firsts = self._split.products["first_sample"][products]
        rows = self._split.rows(firsts)
        self._drop_lies(rows, samples, present, "the row of its text's product")
        tokens, lengths = token_rows(rows["tokens"], np.where(present, rows["num_tokens"], 0), vocabulary, most)
        alignment = np.zeros((len(products), most), np.int64)
        if self._settings.alignment != "none":
            masks = self._split.alignment(firsts, self._settings.alignment)
            width = min(masks.shape[1], most - 2)
            inside = np.arange(width) < lengths[:, None] - 2
            alignment[:, 1 : width + 1] = np.where(inside, masks[:, :width], 0)
        return tokens, lengths, alignment
