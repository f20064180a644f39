"""All of a batch but its patches, by the host: samples, their texts drawn (ITM), lengths; holes for what cannot be used."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from kaleido_fast.data.batches.batch import Batch, HostBatch
from kaleido_fast.data.batches.field_draw import FieldDraw
from kaleido_fast.data.batches.itm import TextDraw
from kaleido_fast.data.batches.own_texts import OwnTexts, own_text_arrays
from kaleido_fast.data.batches.patches import Patches
from kaleido_fast.data.batches.source import BatchRequest
from kaleido_fast.data.batches.word_draw import WordDraw
from kaleido_fast.data.shards.split import REPAIR, Split
from kaleido_fast.data.shards.token_rows import token_rows
from kaleido_fast.kernels.plan_outputs import Plan

BATCH_ARRAYS = ("tokens", "lengths", "alignment", "keys", "image_products", "match", "present", "epochs")


@dataclass(frozen=True, slots=True)
class Assembled:
    """All of a batch but its patches, before it goes up; NumPy arrays."""

    host: HostBatch
    rows: np.ndarray  # (B,) of the table
    tokens: np.ndarray  # (B, T) int32
    alignment: np.ndarray  # (B, T) int64
    epochs: np.ndarray  # (B,) int64
    own_texts: dict[str, np.ndarray] | None = None  # what `own_text_arrays` gives, where they are asked for

    def arrays(self) -> dict[str, np.ndarray]:
        """What goes up, by the batch's names."""
        host = self.host
        return {
            "tokens": self.tokens, "lengths": host.lengths, "alignment": self.alignment,
            "keys": self.rows["key"].view(np.int64), "image_products": host.image_products,
            "match": host.match, "present": host.present, "epochs": self.epochs,
            **(self.own_texts or {})}

    def batch(self, uploaded: Mapping[str, Tensor], patches: Patches, plan: Plan | None = None) -> Batch:
        """The batch; `uploaded` holds `arrays`, and may hold more."""
        own = None if self.own_texts is None else OwnTexts.of(uploaded, self.own_texts["own_lengths"])
        arrays = {name: uploaded[name] for name in BATCH_ARRAYS}
        return Batch(patches=patches, host=self.host, plan=plan, own_texts=own, **arrays)


@dataclass(frozen=True, slots=True)
class _Texts:
    """Texts of a batch."""

    firsts: np.ndarray  # (B,) samples whose texts they are
    rows: np.ndarray  # (B,) of the table; of its tokens those that the batch's samples get
    places: np.ndarray | None  # (B, W) where these stand in the table's own row; None: as they are


class Assembler:
    """Assembles the batches of one request."""

    def __init__(self, split: Split, request: BatchRequest) -> None:
        """Raises ValueError: the split has no such alignment, or no fields to drop or shuffle."""
        self._split, self._settings, self._order, self._holes = split, request.settings, request.order, request.holes
        self._wants_own_texts = request.own_texts
        self._draw = None if request.text_seed is None else \
            TextDraw(split, request.settings, request.text_seed, request.negatives)
        self._has_negatives = request.negatives is not None
        self._fields = FieldDraw.of(split, request.settings, request.field_seed)
        self._words = WordDraw.of(request.settings, request.field_seed)
        split.require_alignment(request.settings.alignment)

    def assemble(self, number: int, fetch: Callable[[np.ndarray, np.ndarray], None]) -> Assembled:
        """Batch `number`; `fetch(samples, present)` reads their patches and clears `present` where it cannot."""
        samples, epochs = self._order(number)
        present = samples >= 0
        rows = self._split.rows(np.maximum(samples, 0))
        self._drop_lies(rows, samples, present, "its row in the table")
        fetch(samples, present)
        products = rows["product"].astype(np.int64)
        text_products, match, mined = self._draw.products(rows, epochs) if self._draw is not None else \
            (products.copy(), np.ones(len(samples), bool), np.zeros(len(samples), bool))
        texts = self._texts(text_products, samples, rows["key"], epochs, present)
        own = None if not self._wants_own_texts else self._texts(products, samples, rows["key"], epochs, present)
        tokens, lengths = self._tokens(texts.rows, present)  # behind both, as either may find holes
        own_texts = None if own is None else self._own_texts(own.rows, present, rows["key"], epochs)
        host = HostBatch(samples, products, text_products, lengths, match, present,
                         mined=mined if self._has_negatives else None, rows=rows, epochs=epochs)
        return Assembled(host, rows, tokens, self._alignment(texts, lengths), epochs, own_texts)

    def note(self, sample: int, reason: str) -> None:
        """Name a hole."""
        self._holes[f"{self._split.name} sample {sample}"] = reason

    def _drop_lies(self, rows: np.ndarray, samples: np.ndarray, present: np.ndarray, what: str) -> None:
        """Make holes of samples whose `rows` hold numbers that cannot be, and clear those rows."""
        self._make_holes(~self._split.plausible(rows), rows, samples, present, what)

    def _make_holes(self, lies: np.ndarray, rows: np.ndarray, samples: np.ndarray, present: np.ndarray, what: str) -> None:
        rows[lies] = np.zeros(1, rows.dtype)
        for index in np.flatnonzero(lies & present):
            present[index] = False
            self.note(int(samples[index]), f"{what} holds numbers that cannot be; {REPAIR}")

    def _texts(
        self, products: np.ndarray, samples: np.ndarray, keys: np.ndarray, epochs: np.ndarray, present: np.ndarray
    ) -> _Texts:
        """The products' texts, each its lowest photograph's, as the samples of these keys get them; lies are holes."""
        firsts = self._split.products["first_sample"][products]
        rows = self._split.rows(firsts)
        self._drop_lies(rows, samples, present, "the row of its text's product")
        if self._fields is None:
            return _Texts(firsts, rows, None)
        lies = ~self._fields.plausible(firsts, rows) & (rows["num_tokens"] > 0)  # not of rows that were lies themselves
        self._make_holes(lies, rows, samples, present, "the row of its text's fields")
        places, rows["num_tokens"] = self._fields.places(firsts, rows, keys, epochs)
        rows["tokens"] = np.take_along_axis(rows["tokens"], places, axis=1)
        return _Texts(firsts, rows, places)

    def _tokens(self, rows: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(B, T) ids with [CLS] and [SEP], (B,) lengths; holes are empty."""
        return token_rows(rows["tokens"], np.where(present, rows["num_tokens"], 0), self._split.manifest.vocabulary,
                          self._settings.max_tokens)

    def _own_texts(
        self, rows: np.ndarray, present: np.ndarray, keys: np.ndarray, epochs: np.ndarray
    ) -> dict[str, np.ndarray]:
        """What goes up of the samples' own texts. Whether two are alike is asked of them as they are before words go."""
        arrays = own_text_arrays(*self._tokens(rows, present))
        if self._words is not None:
            rows, most = rows.copy(), self._settings.max_tokens - 2
            counts = np.minimum(rows["num_tokens"], most)
            rows["tokens"], rows["num_tokens"] = self._words.kept(rows["tokens"], counts, keys, epochs)
            arrays["own_tokens"], arrays["own_lengths"] = self._tokens(rows, present)
        return arrays

    def _alignment(self, texts: _Texts, lengths: np.ndarray) -> np.ndarray:
        """(B, T) int64 masks of the texts."""
        most = self._settings.max_tokens
        alignment = np.zeros((len(lengths), most), np.int64)
        if self._settings.alignment != "none":
            masks = self._split.alignment(texts.firsts, self._settings.alignment)
            masks = masks if texts.places is None else np.take_along_axis(masks, texts.places, axis=1)
            width = min(masks.shape[1], most - 2)
            inside = np.arange(width) < lengths[:, None] - 2
            alignment[:, 1 : width + 1] = np.where(inside, masks[:, :width], 0)
        return alignment
