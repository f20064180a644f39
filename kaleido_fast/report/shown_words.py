"""Which patches the words of some products are aligned with, and where the captioner looked."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kaleido_fast.alignment.align import CAPTIONER
from kaleido_fast.alignment.aligner import Aligner, SampleAlignment, WordPatches
from kaleido_fast.alignment.captioner import Captioner
from kaleido_fast.alignment.captioner_folder import load_captioner, require_fitting
from kaleido_fast.alignment.regions import widened
from kaleido_fast.alignment.settings import AlignSettings
from kaleido_fast.alignment.shard_alignment import ShardFiles
from kaleido_fast.alignment.text_words import words_of
from kaleido_fast.config import load_align_config
from kaleido_fast.data.batches.from_photographs import FromPhotographs
from kaleido_fast.data.batches.loader import evaluation_batches
from kaleido_fast.data.settings import DataSettings
from kaleido_fast.data.shards.split import Split
from kaleido_fast.data.shards.tokenizer import Tokenizer
from kaleido_fast.kernels.plan_rules import GROUP
from kaleido_fast.report.word_panels import ShownWord, ShownWords


def stored_words(split: Split, samples: Sequence[int], name: str) -> list[ShownWords]:
    """What the alignment files called `name` say of up to 16 samples; heat-maps where their captioner is still where it was.

    Raises:
        ValueError: the shards have no such alignment.
    """
    if name == "none":
        return [ShownWords("no alignment: masking is random", [])] * len(samples)
    numbers = np.array(samples)
    masks, rows = split.alignment(numbers, name), split.rows(numbers)
    vocabulary = Tokenizer.from_vocab(split.vocabulary_file).words
    alignments, why = _stored_looks(split, numbers, name)
    out = []
    for row, mask, alignment in zip(rows, masks.tolist(), alignments, strict=True):
        heats = {entry.word.first: entry.heat for entry in alignment.words} if alignment else {}
        text = words_of(row["tokens"][: row["num_tokens"]].tolist(), vocabulary)
        words = [ShownWord(word.text, word.first, word.last, mask[word.first], heats.get(word.first)) for word in text]
        out.append(ShownWords(f"alignment '{name}'{why}", [word for word in words if word.mask]))
    return out


def computed_words(split: Split, samples: Sequence[int], run: Path) -> list[ShownWords]:
    """Up to 16 samples aligned anew, as the align run in `run` would.

    Raises:
        ValueError: no captioner there, or one of other shards.
    """
    config = load_align_config(run)
    folder = Path(config.align.captioner) if config.align.captioner else run / CAPTIONER
    captioner, shape, _ = load_captioner(folder)
    require_fitting(folder, shape, config, split.manifest)
    data = replace(config.data, alignment="none")
    alignments = _look(split, np.array(samples), captioner, config.align, data, config.kaleido.grids)
    return [
        ShownWords(f"aligned anew by {run} ({config.align.mode})",
                   [ShownWord(entry.word.text, entry.word.first, entry.word.last, entry.mask, entry.heat)
                    for entry in alignment.words if entry.mask],
                   alignment.masks(split.manifest.token_width))
        for alignment in alignments]


def _stored_looks(split: Split, samples: np.ndarray, name: str) -> tuple[Sequence[SampleAlignment | None], str]:
    """Where the captioner of stored alignments looked; nothing, and why, where it is not to be found."""
    nothing: list[SampleAlignment | None] = [None] * len(samples)
    if name not in split.manifest.aligned:
        return nothing, ""
    record = ShardFiles(split.folder, split.shards[0], name).read()
    if record is None:
        return nothing, ""
    folder, recipe = Path(str(record.get("captioner", ""))), record["recipe"]
    try:
        captioner, shape, fingerprint = load_captioner(folder)
        if fingerprint != recipe["captioner"]:
            return nothing, "; no heat-maps: another captioner stands where its own was"
    except ValueError:
        return nothing, "; no heat-maps: its captioner is not where it was"
    data = DataSettings(shards=str(split.folder), image_size=shape.image_size, max_tokens=recipe["data.max_tokens"])
    return _look(split, samples, captioner, _settings(shape.align, recipe), data, recipe["kaleido.grids"]), ""


def _settings(captioner: AlignSettings, recipe: dict[str, Any]) -> AlignSettings:
    """Those that alignments were made with."""
    given = {key.removeprefix("align."): value for key, value in recipe.items() if key.startswith("align.")}
    return replace(captioner, **given | {"stop_words": tuple(given["stop_words"])})


def _look(
    split: Split, samples: np.ndarray, captioner: Captioner, settings: AlignSettings, data: DataSettings, grids: Sequence[int]
) -> list[SampleAlignment]:
    aligner = Aligner(captioner, settings, split.manifest.vocabulary, Tokenizer.from_vocab(split.vocabulary_file).words,
                      image_size=data.image_size, max_tokens=data.max_tokens, grids=grids)
    batch = next(evaluation_batches(FromPhotographs(split), samples, data, seed=0, micro_batch=GROUP,
                                    device=torch.device("cpu"), draw_text=False))
    rows = split.rows(samples)
    alignments = aligner.align(batch.images[: len(samples)], rows["tokens"], rows["num_tokens"])
    return [alignment._replace(words=[_smoothed(entry, data.image_size, settings) for entry in alignment.words])
            for alignment in alignments]


def _smoothed(entry: WordPatches, image_size: int, settings: AlignSettings) -> WordPatches:
    """The word with the map whose region was taken."""
    heat = widened(torch.from_numpy(entry.heat)[None], image_size, settings.smoothing)[0]
    return entry._replace(heat=heat.numpy())
