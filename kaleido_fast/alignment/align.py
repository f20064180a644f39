"""align: a captioner is trained or taken, and every sample of every split gets its alignments, one file beside each shard.

Shards are shared out over the workers. A shard that was finished by the same recipe is kept, so a run that was interrupted
goes on by the same command. The manifest names the alignment last, when all of it is there.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kaleido_fast.alignment.aligner import Aligner
from kaleido_fast.alignment.captioner import Captioner
from kaleido_fast.alignment.captioner_folder import (
    CaptionerShape, first_difference, give_network_weights, load_captioner, read_recipe, read_training_speed, recipe_of,
    require_fitting, save_captioner,
)
from kaleido_fast.alignment.captioner_training import find_training, forget_training, train_captioner, train_settings
from kaleido_fast.alignment.settings import AlignConfig
from kaleido_fast.alignment.shard_alignment import ShardFiles
from kaleido_fast.alignment.speed import describe_speed, earlier_generation, generation_speed, most_memory_mib
from kaleido_fast.alignment.summary import Tally, describe, summarise, warning
from kaleido_fast.data.batches.from_photographs import FromPhotographs
from kaleido_fast.data.batches.loader import evaluation_batches
from kaleido_fast.data.shards.manifest import Manifest, folder_fingerprint
from kaleido_fast.data.shards.split import BrokenSample, Split
from kaleido_fast.data.shards.tokenizer import Tokenizer
from kaleido_fast.files import replace_text
from kaleido_fast.progress_bar import ProgressBar
from kaleido_fast.settings import as_yaml
from kaleido_fast.training.workers.failure import run_together
from kaleido_fast.training.workers.group import Workers, start_workers

VERSION = 2  # of what makes masks of maps: raised where its numbers change
CAPTIONER, TRAINING, SUMMARY = "captioner", "captioner-training", "alignment.json"  # in run.out


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard and the numbers of its samples in its split."""

    split: str
    name: str
    first: int
    samples: int


def align(config: AlignConfig) -> int:
    """Align all shards as `config` says; the exit code: 0 when done, 128 + n when signal n stopped the captioner's training, 2
    where another worker says what went wrong.

    Raises:
        ValueError: settings, shards, captioners or alignments that cannot be used.
    """
    workers = start_workers(config.run.device, config.run.timeout_s)
    return run_together(workers, lambda: align_shards(config, workers), config.run.timeout_s)


def align_shards(config: AlignConfig, workers: Workers) -> int:
    """The work of workers that have met; returns and raises as `align`."""
    return _Align(config, workers).run()


class _Align:
    """One worker's part."""

    def __init__(self, config: AlignConfig, workers: Workers) -> None:
        self.config, self.workers, self.out = config, workers, Path(config.run.out)
        self.folder, self.name = Path(config.data.shards), config.align.alignment_name
        with workers.together():
            self.train_split = Split.open(config.data.shards, "train")
            self.manifest = self.train_split.manifest
            self.manifest.require_photographs(self.folder, "align")
            require_own_name(self.manifest, self.name, self.folder)
            self.shape = CaptionerShape.of(config, self.manifest)
        with workers.together():
            if workers.is_first:
                self._start_folder()

    def run(self) -> int:
        code = self._train_where_none_is()
        if code:
            return code
        captioner, found = self._captioner()
        recipe = alignment_recipe(self.config, self.manifest, found)
        with self.workers.together():
            pending = self._pending(recipe) if self.workers.is_first else []
        pending = [Shard(*values) for values in self.workers.from_first([dataclasses.astuple(shard) for shard in pending])]
        aligner = Aligner(
            captioner.to(self.workers.device), self.config.align, self.manifest.vocabulary,
            Tokenizer.from_vocab(self.train_split.vocabulary_file).words, image_size=self.config.data.image_size,
            max_tokens=self.config.data.max_tokens, grids=self.config.kaleido.grids)
        generation = self._align_all(aligner, recipe, pending)
        memory = most_memory_mib(self.workers)
        with self.workers.together():
            if self.workers.is_first:
                given = bool(self.config.align.captioner)
                self._finish(recipe, {
                    "training_samples_per_s": None if given else read_training_speed(self.out / CAPTIONER),
                    "generation": generation or earlier_generation(self.out / SUMMARY, recipe), "peak_memory_mib": memory,
                    "workers": self.workers.count})
        return 0

    def _start_folder(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        replace_text(self.out / "align.yaml", as_yaml(self.config))

    def _train_where_none_is(self) -> int:
        """Train a captioner where none is given and no earlier run of this command has trained one; the exit code."""
        own, recipe = self.out / CAPTIONER, recipe_of(self.config, self.manifest)
        if self.config.align.captioner:
            return 0
        with self.workers.together():
            trained = own.exists()
            if trained:
                require_same_recipe(own, recipe)
        code = 0 if self.workers.from_first(trained) else self._train(own, recipe)
        if not code and self.workers.is_first:
            forget_training(self.out / TRAINING)
        return code

    @property
    def _captioner_folder(self) -> Path:
        given = self.config.align.captioner
        return Path(given) if given else self.out / CAPTIONER

    def _captioner(self) -> tuple[Captioner, str]:
        """The captioner, given or trained, and its fingerprint."""
        folder = self._captioner_folder
        with self.workers.together():
            captioner, shape, found = load_captioner(folder)
            require_fitting(folder, shape, self.config, self.manifest)
        return captioner, found

    def _train(self, folder: Path, recipe: dict[str, Any]) -> int:
        with self.workers.together():
            train_settings(self.config)
            found = find_training(self.out / TRAINING, recipe, self.workers.count) if self.workers.is_first else None
        checkpoint = self.workers.from_first(found)
        with self.workers.together():
            torch.manual_seed(self.config.train.seed)  # the random weights
            captioner = self.shape.build()
            if checkpoint is None:  # of a training that goes on they are in the checkpoint
                give_network_weights(captioner, self.config.model.patch_encoder_weights)
        trained = train_captioner(captioner.to(self.workers.device), self.config, self.train_split, self.workers,
                                  self.out / TRAINING, checkpoint)
        if isinstance(trained, int):
            return trained
        with self.workers.together():
            if self.workers.is_first:
                report = trained.report
                save_captioner(folder, self.shape, trained.weights, recipe, report, trained.samples_per_s)
                print(f"{folder}: {report['steps']} steps, loss {report['loss']:.3f} and accuracy {report['accuracy']:.3f} "
                      "a word")
        return 0

    def _pending(self, recipe: dict[str, Any]) -> list[Shard]:
        """Shards that are still to be aligned, the largest first."""
        files = {shard: ShardFiles(self.folder, shard.name, self.name) for shard in all_shards(self.manifest)}
        pending = [shard for shard, file in files.items() if not self._keeps(file, recipe)]
        if pending:  # until all are there again no reader finds it
            self.manifest.without_alignment(self.name).write_over(self.folder)
        for shard in pending:
            files[shard].remove()
        return sorted(pending, key=lambda shard: -shard.samples)

    def _keeps(self, file: ShardFiles, recipe: dict[str, Any]) -> bool:
        try:
            return file.is_finished(recipe)
        except ValueError:
            if not self.config.align.replace:
                raise
            return False

    def _align_all(self, aligner: Aligner, recipe: dict[str, Any], pending: list[Shard]) -> dict[str, float] | None:
        """Batch by batch on all workers, who meet after each: one that fails is missed at once, none waits for long.

        Returns:
            How fast it was; None where all was there.
        """
        started = time.perf_counter()
        work = self._own_work(aligner, recipe, pending[self.workers.rank :: self.workers.count])
        total = sum(shard.samples for shard in all_shards(self.manifest))
        with ProgressBar(total, "align", "sample", done=total - sum(shard.samples for shard in pending),
                         shown=self.workers.is_first) as bar:
            while True:
                done = next(work, None)
                samples, working = self.workers.total(np.array([done or 0, done is not None], np.float64))
                if not working:
                    break
                bar.update(int(samples))
        splits = self.manifest.splits.values()
        products = sum(entry.products for entry in splits) / max(total, 1)
        done = sum(shard.samples for shard in pending)
        return generation_speed(done, time.perf_counter() - started, products) if pending else None

    def _own_work(self, aligner: Aligner, recipe: dict[str, Any], shards: list[Shard]) -> Iterator[int]:
        for shard in shards:
            tally, parts = Tally(), []
            split = Split.open(self.folder, shard.split)
            for masks in align_samples(aligner, split, self.config, np.arange(shard.first, shard.first + shard.samples),
                                       self.workers.device, tally):
                parts.append(masks)
                yield len(masks)
            ShardFiles(self.folder, shard.name, self.name).write(
                np.concatenate(parts), recipe, tally.counts(), self._captioner_folder)

    def _finish(self, recipe: dict[str, Any], speed: dict[str, Any]) -> None:
        """Name the alignment in the manifest, and say what it came to."""
        files = [ShardFiles(self.folder, shard.name, self.name) for shard in all_shards(self.manifest)]
        records = [file.read() for file in files]
        digests = {file.masks.name: bytes.fromhex(record["sha256"]) for file, record in zip(files, records, strict=True)}
        self.manifest.with_alignment(self.name, folder_fingerprint(digests)).write_over(self.folder)
        summary = summarise(record["counts"] for record in records)
        said = warning(summary, self.config.align.mode)
        replace_text(self.out / SUMMARY, json.dumps({
            "name": self.name, "warning": said, "recipe": recipe, "speed": speed, **summary}, indent=1))
        print(f"{self.folder}: data.alignment={self.name}\n{describe(summary)}\n{describe_speed(speed)}")
        if said:
            print(f"{self.folder}: data.alignment={self.name}: {said}", file=sys.stderr)


def align_samples(
    aligner: Aligner, split: Split, config: AlignConfig, samples: np.ndarray, device: torch.device, tally: Tally
) -> Iterator[np.ndarray]:
    """(n, W) int64 masks of `samples`, a batch at a time; what cannot be read has none."""
    size, data = config.align.micro_batch, dataclasses.replace(config.data, alignment="none")
    batches = evaluation_batches(FromPhotographs(split), samples, data, seed=0, micro_batch=size, device=device,
                                 draw_text=False)
    for number, batch in enumerate(batches):
        here = samples[number * size : (number + 1) * size]
        rows = split.rows(here)
        present = batch.host.present[: len(here)]
        counts = np.where(present, rows["num_tokens"], 0)
        masks = np.zeros(rows["tokens"].shape, np.int64)
        for place, found in enumerate(aligner.align(batch.images[: len(here)], rows["tokens"], counts)):
            if not present[place]:
                tally.miss()
                continue
            masks[place] = found.masks(masks.shape[1])
            tally.add(found, masks[place], counts[place], _record(split, int(here[place])) if tally.wants_example else {})
        yield masks


def all_shards(manifest: Manifest) -> list[Shard]:
    """The shards of all splits, in order."""
    shards = []
    for split, entry in manifest.splits.items():
        firsts = np.cumsum([0, *entry.samples]).tolist()
        shards += [Shard(split, *place) for place in zip(entry.shards, firsts[:-1], entry.samples, strict=True)]
    return shards


def alignment_recipe(config: AlignConfig, manifest: Manifest, captioner: str) -> dict[str, Any]:
    """All that decides what the alignments become, as plain values."""
    settings = config.align
    return {
        "version": VERSION, "shards": manifest.fingerprint, "captioner": captioner,
        "align.mode": settings.mode, "align.beam": settings.beam,
        "align.region_share": settings.region_share, "align.covered_share": settings.covered_share,
        "align.most_covered": settings.most_covered,
        "align.smoothing": settings.smoothing, "align.stop_words": list(settings.stop_words),
        "data.max_tokens": config.data.max_tokens, "kaleido.grids": list(config.kaleido.grids),
    }


def require_own_name(manifest: Manifest, name: str, folder: Path) -> None:
    """Refuse (ValueError) the name of an alignment that `align` did not make, or one that is no part of a file's name."""
    if not name.replace("-", "").replace("_", "").isalnum() or name == "none":
        raise ValueError(f"align.name={name}: give letters, digits, '-' and '_', and another than 'none'")
    if name in manifest.alignments and name not in manifest.aligned:
        raise ValueError(f"align.name={name}: {folder} has an alignment of that name that 'align' did not make; give another")


def require_same_recipe(folder: Path, recipe: dict[str, Any]) -> None:
    """Refuse (ValueError) to go on with a captioner that was trained by other settings; names the first."""
    difference = first_difference(read_recipe(folder), recipe)
    if difference:
        raise ValueError(f"{folder}: {difference}; give another run.out, or align.captioner={folder} to use it as it is")


def _record(split: Split, sample: int) -> dict[str, Any]:
    try:
        return split.record(sample)
    except BrokenSample:
        return {}
