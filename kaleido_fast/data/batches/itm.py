"""Image-text matching: which product's text a sample gets, drawn by the host (SPEC 6)."""

from collections.abc import Callable

import numpy as np
import torch

from kaleido_fast.data.settings import DataSettings
from kaleido_fast.data.shards.split import Split
from kaleido_fast.kernels.philox import SAMPLE, TEXT_DRAW, philox

MASK32 = 0xFFFFFFFF


class TextDraw:
    """Draws the text's product for samples of one split."""

    def __init__(self, split: Split, settings: DataSettings, seed: int) -> None:
        self._split, self._settings, self._seed = split, settings, seed

    def products(self, rows: np.ndarray, epochs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The product rank of each sample's text, and whether it is the photograph's own.

        Args:
            rows: (n,) table rows of the photographs; epochs: (n,) int64.
        """
        mismatch, which, hard = self._words(rows["key"], epochs)
        products = rows["product"].astype(np.int64).copy()
        for i in np.flatnonzero(mismatch >> 31):
            products[i] = self._other(rows[i], int(which[i]), self._is_hard(int(hard[i]), int(epochs[i])))
        return products, products == rows["product"]

    def _words(self, keys: np.ndarray, epochs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        keys = keys.astype(np.uint64)
        low = torch.from_numpy((keys & np.uint64(MASK32)).astype(np.int64))
        high = torch.from_numpy((keys >> np.uint64(32)).astype(np.int64))
        counter = torch.from_numpy(epochs.astype(np.int64) * 16 + SAMPLE)
        words = philox(self._seed & MASK32, (self._seed >> 32) & MASK32, TEXT_DRAW, counter, low, high)
        return words[0].numpy(), words[1].numpy(), words[2].numpy()

    def _is_hard(self, word: int, epoch: int) -> bool:
        if self._settings.itm_negatives == "subcategory":
            return True
        return epoch >= self._settings.itm_hard_from and word < self._settings.itm_hard_share * 2**32

    def _other(self, row: np.void, word: int, hard: bool) -> int:
        """Another product: the drawn candidate, or the next cyclically whose ids, cut to T, differ; else the own."""
        product = int(row["product"])
        if hard:
            candidates = self._split.products_of_subcategory(int(row["subcategory"]))
            other = self._search(product, word, len(candidates), lambda k: int(candidates[k]),
                                 int(np.searchsorted(candidates, product)))
            if other is not None:
                return other
        other = self._search(product, word, self._split.num_products, lambda k: k, product)
        return product if other is None else other

    def _search(self, product: int, word: int, size: int, candidate: Callable[[int], int], own_place: int) -> int | None:
        """Walk the size - 1 candidates other than `product` from the drawn one on."""
        others = size - 1
        if others < 1:
            return None
        text = self._text(product)
        start = (word * others) >> 32
        for step in range(others):
            place = (start + step) % others
            other = candidate(place + (place >= own_place))
            if self._text(other) != text:
                return other
        return None

    def _text(self, product: int) -> bytes:
        """A product's token ids cut to T - 2, as bytes."""
        row = self._split.rows(self._split.products["first_sample"][product : product + 1])[0]
        return row["tokens"][: min(int(row["num_tokens"]), self._settings.max_tokens - 2)].tobytes()
