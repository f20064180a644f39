"""The alignments of shards: every sample's masks by one aligner, one file beside each shard."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kaleido_fast.alignment.align_summary import Tally
from kaleido_fast.alignment.aligner import Aligner
from kaleido_fast.alignment.settings import AlignConfig
from kaleido_fast.alignment.shard_alignment import ShardFiles
from kaleido_fast.data.batches.from_photographs import FromPhotographs
from kaleido_fast.data.batches.loader import evaluation_batches
from kaleido_fast.data.shards.manifest import Manifest
from kaleido_fast.data.shards.split import BrokenSample, Split
from kaleido_fast.training.workers.share_out import ShardWork


class AlignShards:
    """What `share_out` does with shards: those that this recipe has finished are kept.

    Args:
        recipe: all that decides what the alignments become.
        captioner: its folder.
        require_held: of `held_folder`, for the alignment of this name.
    """

    name, unit = "align", "sample"

    def __init__(
        self, config: AlignConfig, aligner: Aligner, device: torch.device, recipe: dict[str, Any],
        captioner: Path, require_held: Callable[[], None],
    ) -> None:
        self._config, self._aligner, self._device, self._require_held = config, aligner, device, require_held
        self._folder, self._recipe, self._captioner = Path(config.data.shards), recipe, captioner

    def files(self, shard: ShardWork) -> ShardFiles:
        """Where a shard's alignments lie."""
        return ShardFiles(self._folder, shard.name, self._config.align.alignment_name)

    def is_finished(self, shard: ShardWork) -> bool:
        try:
            return self.files(shard).is_finished(self._recipe)
        except ValueError:
            if not self._config.align.replace:
                raise
            return False

    def begin(self, todo: Sequence[ShardWork]) -> None:
        """The manifest names the alignment again when all of it is there; until then no reader takes it."""
        Manifest.change(self._folder, lambda now: now.without_alignment(self._config.align.alignment_name))
        for shard in todo:
            self.files(shard).remove()

    def work(self, shards: Sequence[ShardWork]) -> Iterator[int]:
        for shard in shards:
            split, samples = Split.open(self._folder, shard.split), np.arange(shard.first, shard.first + shard.samples)
            tally, parts = Tally(), []
            for masks in align_samples(self._aligner, split, self._config, samples, self._device, tally):
                parts.append(masks)
                yield len(masks)
            self._require_held()
            self.files(shard).write(np.concatenate(parts), self._recipe, tally.counts(), self._captioner)


def align_samples(
    aligner: Aligner, split: Split, config: AlignConfig, samples: np.ndarray, device: torch.device, tally: Tally
) -> Iterator[np.ndarray]:
    """(n, W) int64 masks of `samples`, a batch at a time; what cannot be read has none."""
    size, data = config.align.micro_batch, dataclasses.replace(config.data, alignment="none")
    batches = evaluation_batches(FromPhotographs(split), samples, data, seed=0, micro_batch=size, device=device,
                                 draw_text=False)
    for number, batch in enumerate(batches):
        of_batch = samples[number * size : (number + 1) * size]
        rows = split.rows(of_batch)
        present = batch.host.present[: len(of_batch)]
        counts = np.where(present, rows["num_tokens"], 0)
        masks: np.ndarray = np.zeros(rows["tokens"].shape, np.int64)
        for place, aligned in enumerate(aligner.align(batch.images[: len(of_batch)], rows["tokens"], counts)):
            if not present[place]:
                tally.miss()
                continue
            masks[place] = aligned.masks(masks.shape[1])
            record = _record(split, int(of_batch[place])) if tally.wants_example else {}
            tally.add(aligned, masks[place], counts[place], record)
        yield masks


def _record(split: Split, sample: int) -> dict[str, Any]:
    try:
        return split.record(sample)
    except BrokenSample:
        return {}
