"""Image-text matching: which product's text a sample gets, drawn by the host (SPEC 6; mined negatives: SPEC 10)."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from kaleido_fast.data.settings import DataSettings
from kaleido_fast.data.shards.split import Split
from kaleido_fast.kernels.philox import EVALUATION_EPOCH, SAMPLE, TEXT_DRAW, philox

MASK32 = 0xFFFFFFFF


class DrawnTexts(NamedTuple):
    """Of n samples."""

    products: np.ndarray  # (n,) int64, rank of the text's product
    match: np.ndarray  # (n,) bool, it is the photograph's own
    mined: np.ndarray  # (n,) bool, it is of the product's mined negatives


class TextDraw:
    """Draws the text's product for samples of one split.

    Args:
        negatives: (products, C) int32 ranks of each product's mined negatives, then -1; None before they are mined.
    """

    def __init__(self, split: Split, settings: DataSettings, seed: int, negatives: np.ndarray | None = None) -> None:
        self._split, self._settings, self._seed, self._negatives = split, settings, seed, negatives

    def products(self, rows: np.ndarray, epochs: np.ndarray) -> DrawnTexts:
        """The text of each sample.

        Args:
            rows: (n,) table rows of the photographs; epochs: (n,) int64.
        """
        mismatch, which, hard = self._words(rows["key"], epochs)
        products, mined = rows["product"].astype(np.int64).copy(), np.zeros(len(rows), bool)
        for i in np.flatnonzero(mismatch >> 31):
            is_hard = self._is_hard(int(hard[i]), int(epochs[i]))
            negative = self._mined(int(products[i]), int(which[i])) if is_hard else None
            mined[i] = negative is not None
            products[i] = self._other(rows[i], int(which[i]), is_hard) if negative is None else negative
        return DrawnTexts(products, products == rows["product"], mined)

    def _words(self, keys: np.ndarray, epochs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        keys = keys.astype(np.uint64)
        low = torch.from_numpy((keys & np.uint64(MASK32)).astype(np.int64))
        high = torch.from_numpy((keys >> np.uint64(32)).astype(np.int64))
        counter = torch.from_numpy(epochs.astype(np.int64) * 16 + SAMPLE)
        words = philox(self._seed & MASK32, (self._seed >> 32) & MASK32, TEXT_DRAW, counter, low, high)
        return words[0].numpy(), words[1].numpy(), words[2].numpy()

    def _is_hard(self, word: int, epoch: int) -> bool:
        kind = self._settings.itm_negatives
        if kind == "subcategory" or (kind == "mined" and epoch == EVALUATION_EPOCH):  # validation needs no lists
            return True
        if kind == "mined" and self._negatives is None:
            return False
        return epoch >= self._settings.itm_hard_from and word < self._settings.itm_hard_share * 2**32

    def _mined(self, product: int, word: int) -> int | None:
        """One of the product's mined negatives; None where it has none."""
        if self._negatives is None:
            return None
        negatives = self._negatives[product]
        count = int((negatives >= 0).sum())
        return int(negatives[(word * count) >> 32]) if count else None

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
