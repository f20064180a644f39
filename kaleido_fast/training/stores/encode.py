"""kaleido-fast encode: the features of every photograph of every split, through the step's own `cut` and patch encoder.

One store a shard (data/store/feature_store.py), written beside its place and renamed; a finished one is kept. The workers meet
after every batch, so that progress, unreadable photographs and failures are known to all.
"""

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from kaleido_fast.data.batches.from_photographs import FromPhotographs
from kaleido_fast.data.batches.loader import evaluation_batches
from kaleido_fast.data.shards.manifest import Manifest
from kaleido_fast.data.shards.split import REPAIR, Split
from kaleido_fast.data.store.feature_store import FeatureStore, StoreWriter
from kaleido_fast.data.store.photograph_rows import num_stored_rows
from kaleido_fast.data.store.photograph_store import store_file, store_folder
from kaleido_fast.files import cannot_write
from kaleido_fast.model.kaleido_bert import KaleidoBert
from kaleido_fast.model.patch_encoders.build import storable_encoders
from kaleido_fast.model.photograph_features import encode_photographs
from kaleido_fast.progress_bar import ProgressBar
from kaleido_fast.training.build import build_step
from kaleido_fast.training.settings import StepConfig
from kaleido_fast.training.stores.recipe import check_recipe, recipe_of, with_weights
from kaleido_fast.training.workers.failure import run_together
from kaleido_fast.training.workers.group import Workers, start_workers

MOST = 64  # photographs encoded at once: their patches of 224 x 224 are 1.1 GB in bf16
LISTED = 3  # unreadable photographs named at the end


@dataclass(frozen=True, slots=True)
class ShardWork:
    """A shard to encode."""

    split: str
    name: str
    first: int  # its first sample's number in the split
    samples: int


def encode(config: StepConfig) -> int:
    """Write the store of `data.shards`; the exit code, 0, or 2 where another worker says what went wrong.

    Raises:
        ValueError: settings or shards that cannot be used; a store that was made otherwise; too many unreadable photographs.
    """
    workers = start_workers(config.run.device, config.run.timeout_s)
    return run_together(workers, lambda: encode_shards(config, workers), config.run.timeout_s)


def encode_shards(config: StepConfig, workers: Workers) -> int:
    """The work of workers that have met; returns and raises as `encode`."""
    folder, started = store_folder(config.data), time.perf_counter()
    with workers.together():
        manifest = _manifest(config)
        torch.manual_seed(config.train.seed)  # weights that are drawn: as the run draws them
        model = build_step(config, manifest).model.eval()
        recipe = _recipe(config, manifest, model)
        todo = unfinished(config, manifest, folder, recipe) if workers.is_first else []
        _make(folder)
    todo = workers.from_first(todo)
    own = deal(todo, workers.count)[workers.rank]
    encoder = _Encoder(config, model, folder, recipe, own)
    total = sum(shard.samples for shard in todo)
    with ProgressBar(total, "encode", "photo", shown=workers.is_first) as bar:
        _run(config, workers, encoder, total, bar)
    holes = workers.merged(encoder.holes)
    if workers.is_first:
        print(_describe(config, manifest, folder, total, len(todo), holes, time.perf_counter() - started))
    return 0


def _run(config: StepConfig, workers: Workers, encoder: "_Encoder", total: int, bar: ProgressBar) -> None:
    """Batch by batch until every worker has done its shards."""
    holes, batches = 0, encoder.batches()
    while True:
        done = next(batches, None)
        photographs, finished, found = workers.total(np.array([done or 0, done is None, encoder.take_holes()], np.float64))
        bar.update(int(photographs))
        holes += int(found)
        if holes > config.data.max_holes * total:
            examples = "".join(f"; {name}: {reason}" for name, reason in list(encoder.holes.items())[:1])
            raise ValueError(f"{config.data.shards}: {holes} photographs could not be read, more than data.max_holes="
                             f"{config.data.max_holes:g} allows{examples}; {REPAIR}, or raise data.max_holes")
        if finished == workers.count:
            return


def unfinished(config: StepConfig, manifest: Manifest, folder: Path, recipe: dict) -> list[ShardWork]:
    """The shards that have no whole store yet.

    Raises:
        ValueError: a store is there that was made otherwise.
    """
    todo = []
    for split, entry in manifest.splits.items():
        first = 0
        for name, samples in zip(entry.shards, entry.samples, strict=True):
            if not _is_finished(config, store_file(folder, name), samples, recipe):
                todo.append(ShardWork(split, name, first, samples))
            first += samples
    return todo


def _is_finished(config: StepConfig, path: Path, samples: int, recipe: dict) -> bool:
    try:
        store = FeatureStore(path)
    except ValueError:  # none, or damaged: written anew
        return False
    check_recipe(config, store, recipe)
    return store.header.samples == samples


def deal(shards: Sequence[ShardWork], workers: int) -> list[list[ShardWork]]:
    """Each worker's shards: the largest left goes to who has the fewest photographs."""
    dealt: list[list[ShardWork]] = [[] for _ in range(workers)]
    for shard in sorted(shards, key=lambda shard: (-shard.samples, shard.name)):
        min(dealt, key=lambda own: sum(one.samples for one in own)).append(shard)
    return dealt


class _Encoder:
    """One worker's shards; what it writes lies beside its place until it is whole."""

    def __init__(self, config: StepConfig, model: KaleidoBert, folder: Path, recipe: dict, shards: Sequence[ShardWork]) -> None:
        self._config, self._model, self._folder, self._recipe, self._shards = config, model, folder, recipe, shards
        self.holes: dict[str, str] = {}
        self._told = 0

    def take_holes(self) -> int:
        """How many photographs were found unreadable since it was last asked."""
        new, self._told = len(self.holes) - self._told, len(self.holes)
        return new

    def batches(self) -> Iterator[int]:
        """Encode and write batch by batch; gives how many photographs each held."""
        for split in dict.fromkeys(shard.split for shard in self._shards):
            shards = [shard for shard in self._shards if shard.split == split]
            yield from self._split(Split.open(self._config.data.shards, split), shards)

    def _split(self, split: Split, shards: Sequence[ShardWork]) -> Iterator[int]:
        """One pass over all its shards; a thread writes a batch while the next is encoded."""
        samples = np.concatenate([shard.first + np.arange(shard.samples) for shard in shards])
        data, device = replace(self._config.data, alignment="none"), torch.device(self._config.run.device)
        size = min(MOST, self._config.train.micro_batch)
        batches = evaluation_batches(FromPhotographs(split), samples, data, seed=0, micro_batch=size, device=device,
                                     draw_text=False, holes=self.holes)
        with _Writer(self, shards) as writer, ThreadPoolExecutor(1, thread_name_prefix="store") as thread:
            writing: Future[None] | None = None
            for batch in batches:
                count = int((batch.host.samples >= 0).sum())
                rows = encode_photographs(self._model, batch.images[:count]).cpu().numpy()
                if writing is not None:
                    writing.result()
                writing = thread.submit(writer.add, rows, batch.host.present[:count])
                yield count
            if writing is not None:
                writing.result()

    def start(self, shard: ShardWork) -> tuple[StoreWriter, Path]:
        """A new store of a shard, beside its place."""
        beside = self._folder / f".{store_file(self._folder, shard.name).name}.writing"
        config, model = self._config, self._model
        return StoreWriter(beside, config.data.store_dtype, num_stored_rows(config.kaleido.grids),
                           model.patch_encoder.num_features, self._recipe), beside

    def finish(self, shard: ShardWork, beside: Path) -> None:
        os.replace(beside, store_file(self._folder, shard.name))


class _Writer:
    """Writes rows as they come into one store after the other; takes away what is not whole."""

    def __init__(self, encoder: _Encoder, shards: Sequence[ShardWork]) -> None:
        self._encoder, self._shards = encoder, iter(shards)
        self._store: StoreWriter | None = None
        self._beside: Path | None = None

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *_: object) -> None:
        if self._store is not None:
            self._store.abandon()
            self._beside.unlink(missing_ok=True)

    def add(self, rows: np.ndarray, present: np.ndarray) -> None:
        """Append (n, R, F) float32; a photograph that is not `present` (n,) becomes a hole."""
        try:
            for row, there in zip(rows, present, strict=True):
                if self._store is None:
                    self._shard, self._left = (shard := next(self._shards)), shard.samples
                    self._store, self._beside = self._encoder.start(shard)
                self._store.add(row) if there else self._store.add_hole()
                self._left -= 1
                if not self._left:
                    self._store.close()
                    self._encoder.finish(self._shard, self._beside)
                    self._store = None
        except OSError as error:
            raise cannot_write(self._beside or Path(self._shard.name), error, "make room, then run the same command again: "
                               "finished shards are kept") from error


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error, "give another data.store") from error


def _manifest(config: StepConfig) -> Manifest:
    shards = Path(config.data.shards)
    if not config.data.shards:
        raise ValueError("data.shards: not given; name the folder that 'kaleido-fast prepare' wrote")
    manifest = Manifest.read(shards)
    manifest.require_photographs(shards, "encode")
    return manifest


def _recipe(config: StepConfig, manifest: Manifest, model: KaleidoBert) -> dict:
    encoder = model.patch_encoder
    if encoder.name not in (others := storable_encoders()):
        raise ValueError(f"model.patch_encoder={encoder.name}: encode needs a frozen patch encoder, whose features stay what "
                         f"they are; set it to {', '.join(others[:-1])} or {others[-1]}")
    return with_weights(recipe_of(config, manifest), encoder)


def _describe(
    config: StepConfig, manifest: Manifest, folder: Path, photographs: int, shards: int, holes: dict[str, str], seconds: float
) -> str:
    kept = sum(len(entry.shards) for entry in manifest.splits.values()) - shards
    text = (f"{folder}: {photographs:,} photographs of {shards} shards encoded in {seconds:.0f} s "
            f"({photographs / seconds:,.0f} a second), {config.model.patch_encoder}, {config.data.store_dtype}; {kept} shards were there")
    if holes:
        named = "; ".join(f"{name}: {reason}" for name, reason in list(holes.items())[:LISTED])
        text += f"; {len(holes)} photographs could not be read ({named})"
    return text
