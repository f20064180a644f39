"""align: a captioner is trained or taken, and every sample of every split gets its alignments, one file beside each shard.

Shards are shared out over the workers. A shard that was finished by the same recipe is kept, so a run that was interrupted
goes on by the same command. The manifest names the alignment last, when all of it is there. One run at a time writes into
run.out, and one makes the alignment of a name; two may make two of the same shards.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from kaleido_fast.alignment.align_shards import AlignShards
from kaleido_fast.alignment.align_summary import (
    describe_alignment, describe_speed, earlier_generation, generation_speed, most_memory_mib, summarise, warning,
)
from kaleido_fast.alignment.aligner import Aligner
from kaleido_fast.alignment.captioner import Captioner
from kaleido_fast.alignment.captioner_folder import (
    CaptionerShape, captioner_recipe, first_difference, give_network_weights, load_captioner, read_recipe, read_training_speed,
    require_fitting, save_captioner,
)
from kaleido_fast.alignment.captioner_training import find_training, forget_training, train_captioner, train_settings
from kaleido_fast.alignment.settings import AlignConfig
from kaleido_fast.data.shards.manifest import Manifest, folder_fingerprint
from kaleido_fast.data.shards.split import Split
from kaleido_fast.data.shards.tokenizer import Tokenizer
from kaleido_fast.files import replace_text
from kaleido_fast.folder_lock import LOCK
from kaleido_fast.settings import ALIGNMENT, as_yaml, values_deciding
from kaleido_fast.training.run.lock import held_folder
from kaleido_fast.training.workers.failure import run_together
from kaleido_fast.training.workers.group import Workers, start_workers
from kaleido_fast.training.workers.share_out import SharedOut, all_shards, num_samples, share_out

RECIPE_VERSION = 2  # of what makes masks of maps: raised where its numbers change
CAPTIONER, TRAINING, SUMMARY = "captioner", "captioner-training", "alignment.json"  # in run.out


def align(config: AlignConfig) -> int:
    """Align all shards as `config` says; the exit code: 0 when done, 128 + n when signal n stopped the captioner's training, 2
    where another worker says what went wrong.

    Raises:
        ValueError: settings, shards, captioners or alignments that cannot be used; another process holds run.out, or
            makes the alignment of this name.
    """
    workers = start_workers(config.run.device, config.run.timeout_s)
    return run_together(workers, lambda: align_shards(config, workers), config.run.timeout_s, "by the same command")


def align_shards(config: AlignConfig, workers: Workers) -> int:
    """The work of workers that have met; returns and raises as `align`."""
    with held_folder(Path(config.run.out), workers, "align") as require_held:
        return _Align(config, workers, require_held).run()


class _Align:
    """One worker's part."""

    def __init__(self, config: AlignConfig, workers: Workers, require_held: Callable[[], None]) -> None:
        self.config, self.workers, self.out, self.require_held = config, workers, Path(config.run.out), require_held
        self.folder, self.name = Path(config.data.shards), config.align.alignment_name
        with workers.together():
            self.train_split = Split.open(config.data.shards, "train")
            self.manifest = self.train_split.manifest
            self.manifest.require_photographs(self.folder, "align")
            require_own_name(self.manifest, self.name, self.folder)
            self.shape = CaptionerShape.of(config, self.manifest)
            self.shards = all_shards(self.manifest)
        with workers.together():
            if workers.is_first:
                self._start_folder()

    def run(self) -> int:
        code = self._train_where_none_is()
        if code:
            return code
        captioner, fingerprint = self._captioner()
        recipe = alignment_recipe(self.config, self.manifest, fingerprint)
        aligner = Aligner(
            captioner.to(self.workers.device), self.config.align, self.manifest.vocabulary,
            Tokenizer.from_vocab(self.train_split.vocabulary_file).words, image_size=self.config.data.image_size,
            max_tokens=self.config.data.max_tokens, grids=self.config.kaleido.grids)
        with held_folder(self.folder, self.workers, "align", "align.name", f"alignment.{self.name}.{LOCK}") as require_held:
            job = AlignShards(self.config, aligner, self.workers.device, recipe, self._captioner_folder, require_held)
            done = share_out(self.workers, job, self.shards)
            memory = most_memory_mib(self.workers)
            with self.workers.together():
                if self.workers.is_first:
                    require_held()
                    given = bool(self.config.align.captioner)
                    self._finish(job, recipe, {
                        "training_samples_per_s": None if given else read_training_speed(self.out / CAPTIONER),
                        "generation": self._generation(done) or earlier_generation(self.out / SUMMARY, recipe),
                        "peak_memory_mib": memory, "workers": self.workers.count})
        return 0

    def _start_folder(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        replace_text(self.out / "align.yaml", as_yaml(self.config))

    def _train_where_none_is(self) -> int:
        """Train a captioner where none is given and no earlier run of this command has trained one; the exit code."""
        captioner_folder, recipe = self.out / CAPTIONER, captioner_recipe(self.config, self.manifest)
        if self.config.align.captioner:
            return 0
        with self.workers.together():
            trained = captioner_folder.exists()
            if trained:
                require_same_recipe(captioner_folder, recipe)
        code = 0 if self.workers.from_first(trained) else self._train(captioner_folder, recipe)
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
            captioner, shape, fingerprint = load_captioner(folder)
            require_fitting(folder, shape, self.config, self.manifest)
        return captioner, fingerprint

    def _train(self, folder: Path, recipe: dict[str, Any]) -> int:
        with self.workers.together():
            train_settings(self.config)
            checkpoint = find_training(self.out / TRAINING, recipe, self.workers.count) if self.workers.is_first else None
        checkpoint = self.workers.from_first(checkpoint)
        with self.workers.together():
            torch.manual_seed(self.config.train.seed)  # the random weights
            captioner = self.shape.build()
            if checkpoint is None:  # of a training that goes on they are in the checkpoint
                give_network_weights(captioner, self.config.model.patch_encoder_weights)
        trained = train_captioner(captioner.to(self.workers.device), self.config, self.train_split, self.workers,
                                  self.out / TRAINING, checkpoint, self.require_held)
        if isinstance(trained, int):
            return trained
        with self.workers.together():
            if self.workers.is_first:
                report = trained.report
                self.require_held()
                save_captioner(folder, self.shape, trained.weights, recipe, report, trained.samples_per_s)
                print(f"{folder}: {report['steps']} steps, loss {report['loss']:.3f} and accuracy {report['accuracy']:.3f} "
                      "a word")
        return 0

    def _generation(self, done: SharedOut) -> dict[str, float] | None:
        """How fast shards were aligned; None where all was there."""
        products = sum(entry.products for entry in self.manifest.splits.values()) / max(num_samples(self.shards), 1)
        return generation_speed(num_samples(done.shards), done.seconds, products) if done.shards else None

    def _finish(self, job: AlignShards, recipe: dict[str, Any], speed: dict[str, Any]) -> None:
        """Name the alignment in the manifest, and say what it came to."""
        files = [job.files(shard) for shard in self.shards]
        records = [record for file in files if (record := file.read()) is not None]
        digests = {file.masks.name: bytes.fromhex(record["sha256"]) for file, record in zip(files, records, strict=True)}
        Manifest.change(self.folder, lambda now: now.with_alignment(self.name, folder_fingerprint(digests)))
        summary = summarise(record["counts"] for record in records)
        warned = warning(summary, self.config.align.mode)
        replace_text(self.out / SUMMARY, json.dumps({
            "name": self.name, "warning": warned, "recipe": recipe, "speed": speed, **summary}, indent=1))
        print(f"{self.folder}: data.alignment={self.name}\n{describe_alignment(summary)}\n{describe_speed(speed)}")
        if warned:
            print(f"{self.folder}: data.alignment={self.name}: {warned}", file=sys.stderr)


def alignment_recipe(config: AlignConfig, manifest: Manifest, captioner: str) -> dict[str, Any]:
    """All that decides what the alignments become, as plain values."""
    return {"version": RECIPE_VERSION, "shards": manifest.fingerprint, "captioner": captioner,
            **values_deciding(config, ALIGNMENT)}


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
