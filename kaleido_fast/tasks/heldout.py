"""What measures see: a model, and the products of the splits with their photographs encoded once for all measures."""

from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from kaleido_fast.data.batches.batch import Batch
from kaleido_fast.data.batches.from_photographs import FromPhotographs
from kaleido_fast.data.batches.loader import evaluation_batches
from kaleido_fast.data.shards.manifest import Manifest
from kaleido_fast.data.shards.split import REPAIR, Split
from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from kaleido_fast.options import Option, OptionError
from kaleido_fast.tasks.encoding import PatchRows, PooledEncoder
from kaleido_fast.tasks.products import Products, read_products
from kaleido_fast.tasks.settings import EvalConfig
from kaleido_fast.training.stores.open import check_weights, open_source
from kaleido_fast.training.workers.group import own_device

SplitRole = Literal["measured", "train", "validation"]  # measured: the split that eval.split names, whichever it is


Needed = Callable[[SplitRole, Products], np.ndarray]  # (n,) int64 samples of a split whose photographs are to be encoded


class HeldOut:
    """A model and what it is measured on. Splits are opened, and their photographs encoded, when a measure asks for them.

    Args:
        model: in eval mode, on its device.
        needed: what all measures together need of a split.
    Raises:
        ValueError: shards without photographs.
    """

    def __init__(self, model: KaleidoBertModel, config: EvalConfig, needed: Needed) -> None:
        self.model, self.config, self.settings = model, config, config.eval
        self._needed = needed
        self._splits: dict[SplitRole, EncodedSplit] = {}
        shards = config.data.shards
        if shards:  # before a split of theirs is found to be empty
            Manifest.read(Path(shards)).require_photographs(Path(shards), "evaluate")

    def split(self, role: SplitRole) -> "EncodedSplit":
        """The split that has this role.

        Raises:
            ValueError: it has no products, another vocabulary than the model's, or a store of another encoder.
        """
        if role not in self._splits:
            name = self.settings.split if role == "measured" else role
            split = Split.open(self.config.data.shards, name)
            self._splits[role] = EncodedSplit(self.model, self.config, split, lambda products: self._needed(role, products))
        return self._splits[role]

    @property
    def broken(self) -> dict[str, str]:
        """Photographs that could not be read, and what stood for them, by split and sample number."""
        roles: tuple[SplitRole, ...] = ("train", "validation", "measured")
        return {name: why for role in roles if role in self._splits for name, why in self._splits[role].broken.items()}


class EncodedSplit:
    """A split's products; the photographs that any measure needs are decoded and encoded, or read from the store, once."""

    def __init__(
        self, model: KaleidoBertModel, config: EvalConfig, split: Split, needed: Callable[[Products], np.ndarray]
    ) -> None:
        _check_vocabulary(model, split)
        self._model, self._config, self._needed = model, config, needed
        self.split = split
        self.source = open_source(config, split)
        check_weights(config, self.source, model)
        self.broken: dict[str, str] = {}

    @cached_property
    def products(self) -> Products:
        """All products of the split."""
        return read_products(self.split, self._config.data.max_tokens)

    @cached_property
    def encoder(self) -> PooledEncoder:
        """The model over these products' texts and the photographs that the measures named.

        Raises:
            ValueError: more photographs cannot be read than data.max_holes allows.
        """
        samples = np.unique(self._needed(self.products))
        rows = PatchRows(self._model, samples, self.batches(samples))
        split, limit = self.split, self._config.data.max_holes
        if len(rows.broken) > limit * len(samples):
            raise ValueError(f"{split.folder}: {len(rows.broken)} of {len(samples)} photographs of split '{split.name}' cannot "
                             f"be read, more than data.max_holes={limit:g} allows; {REPAIR}, or raise data.max_holes")
        why = "cannot be read; shown as a grey picture" if isinstance(self.source, FromPhotographs) else \
            "has no features in the store; shown as zeros"
        self.broken = {f"{split.name} sample {sample}": why for sample in rows.broken}
        vocabulary = split.manifest.vocabulary
        return PooledEncoder(self._model, rows, self.products, empty_text=(vocabulary.cls_id, vocabulary.sep_id),
                             precision=self._config.eval.precision)

    def batches(self, samples: np.ndarray, *, photographs: bool = False) -> Iterator[Batch]:
        """The samples in their order with their own texts, under the evaluation epoch.

        Args:
            photographs: also where there is a store, the photographs instead of its features.
        """
        source = FromPhotographs(self.split) if photographs else self.source
        return evaluation_batches(
            source, samples, self._config.data, seed=self._config.eval.seed,
            micro_batch=self._config.eval.batch_photographs, device=own_device(self._config.run.device), draw_text=False)


def _check_vocabulary(model: KaleidoBertModel, split: Split) -> None:
    theirs, ours = split.manifest.vocabulary, model.vocabulary
    if (theirs.size, theirs.fingerprint) != (ours.size, ours.fingerprint):
        what = f"{theirs.size} ids, the model was trained on {ours.size}" if theirs.size != ours.size else \
            f"{theirs.size} ids as the model's has, but other words"
        raise OptionError(f"{split.folder}: its vocabulary has {what}; give the shards of the run, or prepare others with "
                          "their vocab.txt as ", Option("vocab"))
