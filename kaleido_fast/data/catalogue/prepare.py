"""prepare: a catalogue becomes shards and one manifest (SPEC 1, 2.1, 4), written beside and renamed when whole."""

import hashlib
import itertools
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from kaleido_fast.data.catalogue.locking import MIN_SIDE
from kaleido_fast.data.catalogue.photograph import MOST_SIDE, StoredPhotograph, UnusablePhotograph, store_photograph
from kaleido_fast.data.catalogue.product import Catalogue, PhotographSource, Product
from kaleido_fast.data.catalogue.skipping import Skipped, check_limit, stop_past_limit
from kaleido_fast.data.catalogue.true_alignment import read_truth, true_alignment
from kaleido_fast.data.processes import spread
from kaleido_fast.data.shards.fields import field_ranges
from kaleido_fast.data.shards.manifest import (
    FORMAT, FORMAT_OF_FIELDS, VOCABULARY, Manifest, SplitEntry, file_digest, folder_fingerprint,
)
from kaleido_fast.data.shards.split import SPLITS, sample_key
from kaleido_fast.data.shards.tokenizer import Tokenizer, train_vocabulary
from kaleido_fast.data.shards.writer import Sample, ShardWriter, write_products
from kaleido_fast.files import require_free, written_beside
from kaleido_fast.options import Option, OptionError
from kaleido_fast.progress_bar import ProgressBar

MOST_TOKENS = 510  # stored a sample; BERT has 512 places
TRUTH = "truth"  # name of the alignment from a generated catalogue's ground truth
CHUNK = 16  # products a task of the worker processes


@dataclass(frozen=True, slots=True)
class PrepareOptions:
    """What `kaleido-fast prepare` takes, whatever the catalogue's format."""

    catalogue: Catalogue
    out: Path
    vocab: Path | None = None  # trained on the train split's texts without it
    vocab_size: int = 8192
    max_side: int = 1024  # pixels; larger photographs are shrunk
    shard_size: int = 4096  # photographs a shard
    truth: Path | None = None  # truth.jsonl; the one beside the catalogue is found
    max_skipped: float = 0.01  # share of rows and photographs that may be left out
    processes: int = 0  # 0: one a core


@dataclass(frozen=True, slots=True)
class Summary:
    """What prepare did."""

    out: Path
    photographs: dict[str, int]
    products: dict[str, int]
    skipped: dict[str, int]
    vocabulary: int
    seconds: float
    notices: dict[str, tuple[int, str]]  # what was left alone: how many, and the first

    def describe(self) -> str:
        """Some lines for a person."""
        splits = ", ".join(f"{name} {self.products[name]:,} products / {self.photographs[name]:,} photographs"
                           for name in SPLITS)
        skipped = ", ".join(f"{count:,} x {reason}" for reason, count in self.skipped.items()) or "none"
        empty = "".join(f"\nsplit '{name}' is empty: pretrain and evaluate need it; give more products, or a column that "
                        "names their splits" for name in SPLITS if not self.photographs[name])
        left = "".join(f"\n{count:,} {what}, e.g. {example}" for what, (count, example) in self.notices.items())
        return (f"{self.out}: {splits}\nskipped: {skipped}; vocabulary {self.vocabulary:,} words; "
                f"{self.seconds:.0f} s{left}{empty}")


def prepare(options: PrepareOptions) -> Summary:
    """Read, check, lock, tokenise and write a catalogue.

    Raises:
        ValueError: the input cannot be used, too much of it was skipped, or `out` is not empty; nothing is left then.
    """
    started = time.perf_counter()
    _check_options(options)
    skipped = Skipped()
    products = list(options.catalogue.products(skipped))
    stop_past_limit(skipped, len(products) + skipped.total(), options.max_skipped)
    if not any(product.split == "train" for product in products):
        raise _no_train(options.catalogue)
    tokenizer = _tokenizer(options, products)
    with written_beside(options.out, "prepare") as beside:
        manifest = _CatalogueShards(options, beside, tokenizer, products, skipped).write()
        photographs = sum(sum(entry.samples) for entry in manifest.splits.values())
        stop_past_limit(skipped, photographs + skipped.total(), options.max_skipped)
    return Summary(
        options.out, {name: sum(entry.samples) for name, entry in manifest.splits.items()},
        {name: entry.products for name, entry in manifest.splits.items()}, dict(skipped.counts),
        len(tokenizer.words), time.perf_counter() - started, dict(skipped.notices))


def _check_options(options: PrepareOptions) -> None:
    require_free(options.out)
    check_limit(options.max_skipped)
    if not MIN_SIDE <= options.max_side <= MOST_SIDE:
        raise OptionError(Option("max_side"), f"={options.max_side} must lie in {MIN_SIDE}..{MOST_SIDE} pixels")
    if options.vocab_size < 1:
        raise OptionError(Option("vocab_size"), f"={options.vocab_size} must be at least 1")


def _no_train(catalogue: Catalogue) -> ValueError:
    return ValueError(f"{catalogue.place}: no usable product in the train split; give more products, or a column that names "
                      "their splits")


class _CatalogueShards:
    """The shards of a catalogue as they are written: what its products share, and what became of them."""

    def __init__(
        self, options: PrepareOptions, folder: Path, tokenizer: Tokenizer, products: list[Product], skipped: Skipped
    ) -> None:
        self.options, self.folder, self.tokenizer = options, folder, tokenizer
        self.products, self.skipped = products, skipped
        truth = options.truth or options.catalogue.place.with_name("truth.jsonl")
        self.truth = read_truth(truth) if options.truth or truth.exists() else None
        self.alignment = TRUTH if self.truth is not None else ""
        self.categories = _numbered(product.category for product in products)
        self.subcategories = _numbered(product.subcategory for product in products)
        self.tokens = {product.id: tokenizer.encode_with_offsets(product.text) for product in products}
        self.fields = tuple(name for name, _ in products[0].fields)
        self.width = min(MOST_TOKENS, max((len(ids) for ids, _ in self.tokens.values()), default=1) or 1)

    def write(self) -> Manifest:
        splits = {}
        with ProgressBar(len(self.products), "prepare", "product") as bar:
            for name in SPLITS:
                chosen = sorted((p for p in self.products if p.split == name), key=lambda product: _order(product.id))
                splits[name] = self._split(name, chosen, bar)
        if not sum(splits["train"].samples):
            raise _no_train(self.options.catalogue)
        (self.folder / VOCABULARY).write_text(self.tokenizer.text(), encoding="utf-8")
        manifest = Manifest(
            vocabulary=self.tokenizer.vocabulary(), categories=tuple(self.categories),
            subcategories=tuple(self.subcategories), splits=splits, token_width=self.width,
            alignments=(self.alignment,) if self.alignment else (), skipped_counts=dict(self.skipped.counts),
            skipped=self.skipped.examples, max_side=self.options.max_side, fields=self.fields,
            format=FORMAT_OF_FIELDS if self.fields else FORMAT)
        manifest = replace(manifest, fingerprint=folder_fingerprint(
            {name: file_digest(self.folder / name) for name in manifest.files()}))
        manifest.write(self.folder)
        return manifest

    def _split(self, name: str, products: list[Product], bar: ProgressBar) -> SplitEntry:
        """Write a split's shards as its photographs come; ranks are known only when all have come, so they go in last."""
        shards: list[str] = []
        samples: list[int] = []
        written: list[tuple[bytes, int, int, int, int]] = []  # rows of the product table, as they came
        writer, filled, number = None, 0, 0
        for product, photographs in _stored(products, self.options, bar, self.skipped):
            written.append((product.id.encode(), number, len(photographs), *self._classes(product)))
            for photo, photograph in photographs:
                if writer is None or filled == self.options.shard_size:
                    if writer is not None:
                        samples.append(writer.close())
                    shards.append(f"{name}-{len(shards):06d}")
                    writer, filled = ShardWriter(self.folder, shards[-1], self.width, self.alignment), 0
                member = f"{len(shards) - 1:06d}-{filled:06d}"
                writer.add(self._sample(product, len(written) - 1, photo, photograph, member))
                filled, number = filled + 1, number + 1
        if writer is not None:
            samples.append(writer.close())
        write_products(self.folder, name, shards, written)
        return SplitEntry(tuple(shards), tuple(samples), len(written))

    def _sample(self, product: Product, place: int, photo: int, photograph: StoredPhotograph, member: str) -> Sample:
        ids, offsets = self.tokens[product.id]
        square = photograph.lock
        category, subcategory = self._classes(product)
        alignment = None
        if self.truth is not None:
            alignment = true_alignment(self.truth.get((product.id, photo), []), offsets, square, photograph.scale)
        record: dict[str, Any] = {"id": product.id, "text": product.text, "category": product.category,
                                  "subcategory": product.subcategory, "photo": photo}
        row = {"crc": photograph.crc, "key": sample_key(product.id, photo), "product": place, "photo": photo,
               "category": category, "subcategory": subcategory, "left": square.left, "top": square.top,
               "side": square.side, "fill": square.fill}
        ranges = None
        if self.fields:
            record["fields"] = dict(product.fields)
            ranges = field_ranges([text for _, text in product.fields], offsets, self.width)
        return Sample(member, photograph.data, record, row, ids, alignment, ranges)

    def _classes(self, product: Product) -> tuple[int, int]:
        return self.categories[product.category], self.subcategories[product.subcategory]


def _numbered(names: Iterable[str]) -> dict[str, int]:
    """Each name's number in their order."""
    return {name: number for number, name in enumerate(sorted(set(names)))}


def _stored(
    products: list[Product], options: PrepareOptions, bar: ProgressBar, skipped: Skipped
) -> Iterator[tuple[Product, list[tuple[int, StoredPhotograph]]]]:
    """Each product with its usable photographs, in order; products without any are skipped."""
    sources = [product.photographs for product in products]
    chunks = [sources[start : start + CHUNK] for start in range(0, len(sources), CHUNK)]
    results = spread(partial(_store_all, max_side=options.max_side), chunks, options.processes or os.cpu_count() or 1)
    for product, outcomes in zip(products, itertools.chain.from_iterable(results), strict=True):
        usable = []
        for photo, outcome in enumerate(outcomes):
            if isinstance(outcome, str):
                skipped.add(outcome, f"{product.place}: {product.photographs[photo].name}")
            else:
                usable.append((photo, outcome))
        if usable:
            yield product, usable
        bar.update()


def _store_all(products: list[tuple[PhotographSource, ...]], max_side: int) -> list[list[StoredPhotograph | str]]:
    """In a worker process: a stored photograph, or the reason why not, for each photograph of each product."""
    return [[_store_or_reason(source, max_side) for source in photographs] for photographs in products]


def _store_or_reason(source: PhotographSource, max_side: int) -> StoredPhotograph | str:
    try:
        return store_photograph(source, max_side)
    except UnusablePhotograph as error:
        return str(error)


def _tokenizer(options: PrepareOptions, products: list[Product]) -> Tokenizer:
    if options.vocab is not None:
        return Tokenizer.from_vocab(options.vocab)
    return Tokenizer(train_vocabulary((p.text for p in products if p.split == "train"), options.vocab_size))


def _order(product_id: str) -> bytes:
    """Storage order inside a split: by hash, so that neighbours in a shard are unrelated."""
    return hashlib.sha256(product_id.encode()).digest()[8:16]
