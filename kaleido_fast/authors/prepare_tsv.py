"""prepare of kaleido-tsv: the authors' feature files become shards with stored features (DESIGN 'Feature store').

Splits. Pre-training rows name no product, but two rows of one photograph share its level-5 features, which no transform
touches. Their SHA-256 names the photograph and draws its split: 1 in 100 photographs is for validation (at least the one
with the least draw), all others train, none test. Retrieval and category rows have ids and no plan: all are test.
"""

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from kaleido_fast.authors.feature_writer import FeatureSample, FeatureShardWriter
from kaleido_fast.authors.tsv_columns import TOKENS, TsvLayout
from kaleido_fast.authors.tsv_files import CLASSES, ReadRow, Refused, find_layout, read_rows
from kaleido_fast.data.catalogue.skipping import Skipped, check_limit, stop_past_limit
from kaleido_fast.data.processes import spread
from kaleido_fast.data.shards.manifest import (
    FORMAT_OF_FEATURES, VOCABULARY, Manifest, ShardFeatures, SplitEntry, file_digest, folder_fingerprint,
)
from kaleido_fast.data.shards.split import SPLITS, sample_key
from kaleido_fast.data.shards.tokenizer import Tokenizer, bert_ids
from kaleido_fast.data.shards.writer import write_products
from kaleido_fast.data.store.feature_store import recipe_fingerprint
from kaleido_fast.files import require_free, written_beside
from kaleido_fast.progress_bar import ProgressBar

BYTES_A_PROCESS = 1 << 30  # of files to compute a SHA-256 of: starting a process takes longer than a few
VALIDATION_SHARE = 0.01  # of the photographs of pre-training files
CLASS_NAMES = {"img_category_id": "img_category", "img_subcategory_id": "img_subcategory"}


@dataclass(frozen=True, slots=True)
class KaleidoTsvOptions:
    """What `kaleido-fast prepare` takes of the authors' feature files (kaleido-tsv)."""

    catalog: tuple[Path, ...]
    out: Path
    vocab: Path | None = None  # without it the shards know BERT's ids, not its words
    shard_size: int = 4096  # rows a shard
    max_skipped: float = 0.01  # share of rows that may be left out
    processes: int = 0  # 0: one a core


@dataclass(frozen=True, slots=True)
class TsvSummary:
    """What prepare did."""

    out: Path
    features: ShardFeatures
    rows: dict[str, int]
    photographs: dict[str, int]
    skipped: dict[str, int]
    words_known: bool
    seconds: float

    def describe(self) -> str:
        """Some lines for a person."""
        splits = ", ".join(f"{name} {rows:,} rows of {self.photographs[name]:,} photographs"
                           for name, rows in self.rows.items())
        skipped = ", ".join(f"{count:,} x {reason}" for reason, count in self.skipped.items()) or "none"
        total = sum(self.rows.values())
        words = "" if self.words_known else ("\nno vocabulary given: ids are taken as BERT's 30,522 uncased ones, texts cannot "
                                             "be tokenised")
        return (f"{self.out}: {splits}\n{self.features.layout} layout, F = {self.features.num_features:,}, "
                f"{self.features.rows} rows each; skipped: {skipped}; {self.seconds:.0f} s, {total / self.seconds:.0f} rows/s"
                f"{words}")


def prepare_kaleido_tsv(options: KaleidoTsvOptions) -> TsvSummary:
    """Read, check and write the authors' feature files of one layout.

    Raises:
        ValueError: the input cannot be used, too much of it was skipped, or `out` is not empty; nothing is left then.
    """
    started = time.perf_counter()
    require_free(options.out)
    check_limit(options.max_skipped)
    tokenizer = Tokenizer(bert_ids()) if options.vocab is None else Tokenizer.from_vocab(options.vocab)
    layout, skipped = find_layout(options.catalog), Skipped()
    with written_beside(options.out, "prepare") as beside:
        shards = _FeatureShards(options, beside, layout, tokenizer, skipped)
        manifest = shards.write()
    return TsvSummary(
        options.out, shards.features, {name: sum(entry.samples) for name, entry in manifest.splits.items()},
        {name: entry.products for name, entry in manifest.splits.items()}, dict(skipped.counts),
        not tokenizer.ids_alone, time.perf_counter() - started)


@dataclass(frozen=True, slots=True)
class _Numbered:
    """A usable row and where it stands."""

    file: Path
    line: int
    row: ReadRow


class _FeatureShards:
    """The shards of feature files as they are written: splits and names as they grow."""

    def __init__(
        self, options: KaleidoTsvOptions, folder: Path, layout: TsvLayout, tokenizer: Tokenizer, skipped: Skipped
    ) -> None:
        self.options, self.folder, self.layout, self.tokenizer = options, folder, layout, tokenizer
        self.skipped, self.processes = skipped, options.processes or os.cpu_count() or 1
        self.num_features = 0  # F, of the first usable row; 0 before it
        self.names: dict[str, dict[int, str]] = {name: {} for name in CLASSES}

    def write(self) -> Manifest:
        splits = {name: _SplitWriter(self, name) for name in SPLITS}
        for name, numbered in self._assigned(self._usable()):
            splits[name].add(numbered)
        entries = {name: split.close() for name, split in splits.items()}
        if self.layout.has_plan and not entries["train"].samples:
            raise ValueError(f"{self.options.catalog[0]}: rows of one photograph alone, which validation takes; give more rows")
        (self.folder / VOCABULARY).write_text(self.tokenizer.text(), encoding="utf-8")
        manifest = Manifest(
            vocabulary=self.tokenizer.vocabulary(), categories=self._names("img_category_id"),
            subcategories=self._names("img_subcategory_id"), splits=entries, token_width=TOKENS - 2,
            skipped_counts=dict(self.skipped.counts), skipped=self.skipped.examples, format=FORMAT_OF_FEATURES,
            features=self.features)
        files = [self.folder / name for name in manifest.files()]
        processes = min(self.processes, 1 + sum(file.stat().st_size for file in files) // BYTES_A_PROCESS)
        digests = dict(zip(manifest.files(), spread(file_digest, files, processes), strict=True))
        manifest = replace(manifest, fingerprint=folder_fingerprint(digests))
        manifest.write(self.folder)
        return manifest

    @property
    def recipe(self) -> dict[str, str | int]:
        """What the features depend on, as far as the files say."""
        return {"source": "kaleido-tsv", "layout": self.layout.name, "num_features": self.num_features}

    @property
    def features(self) -> ShardFeatures:
        return ShardFeatures(self.layout.name, "fp32", self.layout.num_rows, self.num_features,
                              recipe_fingerprint(self.recipe))

    def _usable(self) -> Iterator[_Numbered]:
        """Rows that can be used, in the files' order; the others are skipped, past the limit it stops."""
        limit, total = self.options.max_skipped, sum(file.stat().st_size for file in self.options.catalog)
        usable = done = 0
        with ProgressBar(total, "prepare", "B", scaled=True) as bar:
            pieces = read_rows(self.options.catalog, self.layout, self.tokenizer.vocabulary(), self.processes)
            for file, size, rows in pieces:
                for line, row in rows:
                    row = row if isinstance(row, Refused) else self._refused(row) or row
                    if isinstance(row, Refused):
                        self.skipped.add(row.reason, f"{file}, line {line}: {row.what}")
                    else:
                        usable += 1
                        yield _Numbered(file, line, row)
                bar.update(size)
                done += size
                seen = usable + self.skipped.total()
                if self.skipped.total() > limit * max(seen, seen * total / done):  # of all rows, by what they measure
                    stop_past_limit(self.skipped, seen, limit, "rows")
        stop_past_limit(self.skipped, usable + self.skipped.total(), limit, "rows")
        if not usable:
            raise ValueError(f"{self.options.catalog[0]}: no usable row")

    def _refused(self, row: ReadRow) -> Refused | None:
        """What sets a row apart from those before it."""
        num_features = row.features.shape[1]
        if not self.num_features:
            self.num_features = num_features
        if num_features != self.num_features:
            column = "img_feature_convert_rotation"
            return Refused(f"{column}: another F",
                           f"{column}: F = {num_features:,}, expected {self.num_features:,} as in the first row")
        for column, index in row.classes.items():
            name = row.texts[CLASS_NAMES[column]]
            known = self.names[column].setdefault(index, name)
            if name != known:
                return Refused(f"{column}: two names", f"{column}: {index} is '{name}', expected '{known}' as in rows before")
        return None

    def _assigned(self, rows: Iterable[_Numbered]) -> Iterator[tuple[str, _Numbered]]:
        """Each row with its split. Rows of the photograph with the least draw so far are held back: they are validation's
        where no draw falls below its share."""
        if not self.layout.has_plan:
            yield from (("test", row) for row in rows)
            return
        held: list[_Numbered] = []
        least, is_filled = 1.0, False
        for row in rows:
            draw = int(row.row.photograph[:13], 16) / 16**13
            if draw < VALIDATION_SHARE:
                yield "validation", row
                is_filled = True
            elif is_filled or draw > least:
                yield "train", row
            elif draw == least:
                held.append(row)
                continue
            if draw < least:
                yield from (("train", other) for other in held)
                held, least = [] if is_filled else [row], draw
        yield from (("train" if is_filled else "validation", row) for row in held)

    def _names(self, column: str) -> tuple[str, ...]:
        """Names by the files' own ids; an id that no row has is ''."""
        names = self.names[column]
        return tuple(names.get(index, "") for index in range(max(names, default=0) + 1))


class _SplitWriter:
    """One split's shards and products, as its rows come."""

    def __init__(self, prepared: _FeatureShards, name: str) -> None:
        self._prepared, self._name = prepared, name
        self._shard: FeatureShardWriter | None = None
        self._shards: list[str] = []
        self._samples: list[int] = []
        self._products: dict[str, list[int]] = {}  # id: place, first sample, samples, category, sub-category
        self._count = 0

    def add(self, numbered: _Numbered) -> None:
        row = numbered.row
        name = row.texts.get("image_prod_id", row.photograph)
        classes = [row.classes.get(column, 0) for column in CLASSES]
        product = self._products.setdefault(name, [len(self._products), self._count, 0, *classes])
        photo, product[2], self._count = product[2], product[2] + 1, self._count + 1
        record = {"id": name, "text": row.texts.get("prod_desc", ""), "category": row.texts.get("img_category", ""),
                  "subcategory": row.texts.get("img_subcategory", ""), "photo": photo, "file": numbered.file.name,
                  "line": numbered.line, "match": row.match}
        record |= {key: row.texts[key] for key in ("text_prod_id", "prod_img_id") if key in row.texts}
        columns = {"key": sample_key(name, photo), "product": product[0], "photo": photo, "category": classes[0],
                   "subcategory": classes[1]}
        self._open().add(FeatureSample(row.features, row.locations, row.plan, row.words, record, columns))

    def close(self) -> SplitEntry:
        """The split's entry in the manifest."""
        if self._shard is not None:
            self._samples.append(self._shard.close())
        written = [(name.encode(), first, samples, category, subcategory)
                   for name, (_, first, samples, category, subcategory) in self._products.items()]
        write_products(self._prepared.folder, self._name, self._shards, written)
        return SplitEntry(tuple(self._shards), tuple(self._samples), len(written))

    def _open(self) -> FeatureShardWriter:
        """The shard with room for another row."""
        if self._shard is None or len(self._shard) == self._prepared.options.shard_size:
            if self._shard is not None:
                self._samples.append(self._shard.close())
            self._shards.append(f"{self._name}-{len(self._shards):06d}")
            self._shard = FeatureShardWriter(self._prepared.folder, self._shards[-1], TOKENS - 2, self._prepared.features,
                                             self._prepared.recipe)
        return self._shard
