"""kaleido-fast encode: the features of every photograph of every split, through the step's own `cut` and patch encoder.

One store a shard (data/store/feature_store.py), written beside its place and renamed; a finished one is kept. Shards are shared
out over the workers. One run of `encode` at a time writes into the folder; a store that is whole needs no right to write.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from kaleido_fast.data.batches.from_photographs import FromPhotographs
from kaleido_fast.data.batches.loader import evaluation_batches
from kaleido_fast.data.shards.manifest import Manifest
from kaleido_fast.data.shards.split import Split
from kaleido_fast.data.store.feature_store import FeatureStore, StoreWriter
from kaleido_fast.data.store.photograph_store import store_file, store_folder
from kaleido_fast.files import cannot_write
from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from kaleido_fast.model.kaleido_tasks import stored_rows
from kaleido_fast.model.patch_encoders.build import storable_encoders
from kaleido_fast.model.photograph_features import encode_photographs
from kaleido_fast.training.build import build_step
from kaleido_fast.training.run.lock import held_folder
from kaleido_fast.training.settings import StepConfig
from kaleido_fast.training.stores.recipe import check_recipe, store_recipe, with_weights
from kaleido_fast.training.workers.failure import run_together
from kaleido_fast.training.workers.group import Workers, start_workers
from kaleido_fast.training.workers.share_out import HoleLimit, ShardWork, all_shards, num_samples, share_out

MOST = 64  # photographs encoded at once: their patches of 224 x 224 are 1.1 GB in bf16
LISTED = 3  # unreadable photographs named at the end


def encode(config: StepConfig) -> int:
    """Write the store of `data.shards`; the exit code, 0, or 2 where another worker says what went wrong.

    Raises:
        ValueError: settings or shards that cannot be used; a store that was made otherwise; too many unreadable photographs.
    """
    workers = start_workers(config.run.device, config.run.timeout_s)
    return run_together(workers, lambda: encode_shards(config, workers), config.run.timeout_s, "by the same command")


def encode_shards(config: StepConfig, workers: Workers) -> int:
    """The work of workers that have met; returns and raises as `encode`."""
    folder, started = store_folder(config.data), time.perf_counter()
    with workers.together():
        manifest = _manifest(config)
        torch.manual_seed(config.train.seed)  # weights that are drawn: as the run draws them
        model = build_step(config, manifest).model.eval()
        job = _Encoding(config, model, workers.device, folder, _recipe(config, manifest, model))
    shards = all_shards(manifest)
    with workers.together():
        is_whole = workers.is_first and all(map(job.is_finished, shards))
    whole: contextlib.AbstractContextManager[Callable[[], None]] = contextlib.nullcontext(lambda: None)
    with whole if workers.from_first(is_whole) else held_folder(folder, workers, "encode", "data.store") as require_held:
        job.require_held = require_held
        done = share_out(workers, job, shards, HoleLimit(job.holes, config.data.max_holes, config.data.shards)).shards
    holes = workers.merged(job.holes)
    if workers.is_first:
        kept, seconds = len(shards) - len(done), time.perf_counter() - started
        print(_describe(config, folder, done, kept, holes, seconds))
    return 0


class _Encoding:
    """A store a shard; what is written lies beside its place until it is whole."""

    name, unit = "encode", "photo"

    def __init__(self, config: StepConfig, model: KaleidoBertModel, device: torch.device, folder: Path, recipe: dict) -> None:
        self._config, self._model, self._device, self._folder, self._recipe = config, model, device, folder, recipe
        self.holes: dict[str, str] = {}  # photographs that could not be read, and why
        self.require_held: Callable[[], None] = lambda: None  # of `held_folder`

    def is_finished(self, shard: ShardWork) -> bool:
        try:
            store = FeatureStore(store_file(self._folder, shard.name))
        except ValueError:  # none, or damaged: written anew
            return False
        check_recipe(self._config, store, self._recipe)
        rows = stored_rows(self._config.kaleido).num_rows
        if store.header.rows != rows:
            raise ValueError(f"{store.path}: holds {store.header.rows} rows a photograph, kaleido.tasks and kaleido.grids ask "
                             f"for {rows}; give another data.store, or remove that folder")
        return store.header.samples == shard.samples

    def begin(self, todo: Sequence[ShardWork]) -> None:
        _make(self._folder)
        for shard in todo:
            _beside(self._folder, shard).unlink(missing_ok=True)

    def work(self, shards: Sequence[ShardWork]) -> Iterator[int]:
        for split in dict.fromkeys(shard.split for shard in shards):
            yield from self._encode(Split.open(self._config.data.shards, split), [one for one in shards if one.split == split])

    def _encode(self, split: Split, shards: Sequence[ShardWork]) -> Iterator[int]:
        """One pass over all its shards; a thread writes a batch while the next is encoded."""
        samples = np.concatenate([shard.first + np.arange(shard.samples) for shard in shards])
        data = replace(self._config.data, alignment="none")
        size = min(MOST, self._config.train.micro_batch)
        batches = evaluation_batches(FromPhotographs(split), samples, data, seed=0, micro_batch=size,
                                     device=self._device, draw_text=False, holes=self.holes)
        with _StoreFiles(self._folder, shards, self._new_store, self.require_held) as stores, \
                ThreadPoolExecutor(1, thread_name_prefix="store") as thread:
            writing: Future[None] | None = None
            for batch in batches:
                count = int((batch.host.samples >= 0).sum())
                rows = encode_photographs(self._model, batch.images[:count]).cpu().numpy()
                if writing is not None:
                    writing.result()
                writing = thread.submit(stores.add, rows, batch.host.present[:count])
                yield count
            if writing is not None:
                writing.result()

    def _new_store(self, file: Path) -> StoreWriter:
        config = self._config
        return StoreWriter(file, config.data.store_dtype, stored_rows(config.kaleido).num_rows,
                           self._model.patch_encoder.num_features, self._recipe)


class _StoreFiles:
    """Writes rows as they come into the stores of `shards`, one after the other; takes away what is not whole."""

    def __init__(
        self, folder: Path, shards: Sequence[ShardWork], new_store: Callable[[Path], StoreWriter],
        require_held: Callable[[], None],
    ) -> None:
        self._folder, self._shards, self._new_store, self._require_held = folder, iter(shards), new_store, require_held
        self._store: StoreWriter | None = None

    def __enter__(self) -> "_StoreFiles":
        return self

    def __exit__(self, *_: object) -> None:
        if self._store is not None:
            self._store.abandon()
            _beside(self._folder, self._shard).unlink(missing_ok=True)

    def add(self, rows: np.ndarray, present: np.ndarray) -> None:
        """Append (n, R, F) float32; a photograph that is not `present` (n,) becomes a hole."""
        try:
            for row, is_present in zip(rows, present, strict=True):
                if self._store is None:
                    self._shard = next(self._shards)
                    self._left = self._shard.samples
                    self._store = self._new_store(_beside(self._folder, self._shard))
                self._store.add(row) if is_present else self._store.add_hole()
                self._left -= 1
                if not self._left:
                    self._store.close()
                    self._require_held()
                    os.replace(_beside(self._folder, self._shard), store_file(self._folder, self._shard.name))
                    self._store = None
        except OSError as error:
            raise cannot_write(_beside(self._folder, self._shard), error, "make room, then run the same command again: "
                               "finished shards are kept") from error


def _beside(folder: Path, shard: ShardWork) -> Path:
    """Where a shard's store is written until it is whole."""
    return folder / f".{store_file(folder, shard.name).name}.writing"


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


def _recipe(config: StepConfig, manifest: Manifest, model: KaleidoBertModel) -> dict:
    encoder = model.patch_encoder
    if encoder.name not in (others := storable_encoders()):
        raise ValueError(f"model.patch_encoder={encoder.name}: encode needs a frozen patch encoder, whose features stay what "
                         f"they are; set it to {', '.join(others[:-1])} or {others[-1]}")
    return with_weights(store_recipe(config, manifest), encoder)


def _describe(
    config: StepConfig, folder: Path, done: Sequence[ShardWork], kept: int, holes: dict[str, str], seconds: float
) -> str:
    photographs = num_samples(done)
    text = (f"{folder}: {photographs:,} photographs of {len(done)} shards encoded in {seconds:.0f} s "
            f"({photographs / seconds:,.0f} a second), {config.model.patch_encoder}, {config.data.store_dtype}; {kept} shards "
            "were there")
    if holes:
        named = "; ".join(f"{name}: {reason}" for name, reason in list(holes.items())[:LISTED])
        text += f"; {len(holes)} photographs could not be read ({named})"
    return text
