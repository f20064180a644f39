"""align-eval: a captioner's alignments of held-out products against the true parts of a generated catalogue."""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from kaleido_fast.alignment.align import CAPTIONER
from kaleido_fast.alignment.aligner import Aligner, WordPatches
from kaleido_fast.alignment.captioner import Captioner
from kaleido_fast.alignment.captioner_folder import load_captioner, read_report, require_fitting
from kaleido_fast.alignment.scores import PairScore, merged
from kaleido_fast.alignment.settings import AlignConfig, Mode
from kaleido_fast.alignment.text_words import Word, names_something, words_of
from kaleido_fast.data.batches.from_photographs import FromPhotographs
from kaleido_fast.data.batches.loader import evaluation_batches
from kaleido_fast.data.catalogue.locking import Lock
from kaleido_fast.data.catalogue.true_alignment import covered_positions, read_truth_records, touched_positions
from kaleido_fast.data.drawn.products import COLOURS, PATTERNS
from kaleido_fast.data.drawn.shapes import ARTICLES, MOTIFS
from kaleido_fast.data.drawn.write import drawing_of
from kaleido_fast.data.shards.split import Split
from kaleido_fast.data.shards.tokenizer import Tokenizer
from kaleido_fast.progress_bar import ProgressBar
from kaleido_fast.training.workers.group import own_device

MODES: tuple[Mode, ...] = ("generated", "forced")
PART_WORDS = frozenset(MOTIFS) | {
    word for article in ARTICLES for part in article.parts for style in part.styles for word in style.split()}


def kind_of_word(word: str) -> str:
    """colour, pattern or part, as the generated catalogue uses the word; else empty."""
    if word in COLOURS:
        return "colour"
    return "pattern" if word in PATTERNS else "part" if word in PART_WORDS else ""


def evaluate_alignments(
    run: Path, config: AlignConfig, truth: Path, out: Path | None = None, samples: int = 0, split_name: str = "test"
) -> dict[str, Any]:
    """Score both modes on a held-out split.

    Args:
        run: a folder that `align` wrote.
        config: its settings.
        truth: truth.jsonl of the generated catalogue that the shards were made of.
        out: JSON file to write.
        samples: how many, 0: all.
    Raises:
        ValueError: no such run, or shards that are not of this catalogue.
    """
    folder = Path(config.align.captioner) if config.align.captioner else run / CAPTIONER
    split = Split.open(config.data.shards, split_name)
    captioner, shape, _ = load_captioner(folder)
    require_fitting(folder, shape, config, split.manifest)
    true_parts = Truth(split, truth)
    numbers = np.arange(min(samples or split.num_samples, split.num_samples))
    device = own_device(config.run.device)
    result: dict[str, Any] = {mode: score_mode(captioner.to(device), config, split, true_parts, numbers, mode, device)
                              for mode in MODES}
    align = config.align
    result["about"] = {
        "split": split_name, "smoothing": align.smoothing, "region_share": align.region_share,
        "covered_share": align.covered_share, "most_covered": align.most_covered, "samples": len(numbers),
        "drawing": drawing_of(truth.parent),
        "products": split.num_products, "train_samples": sum(split.manifest.splits["train"].samples),
        "captioner": read_report(folder)}
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


class Truth:
    """What the words of a split's samples name, and where it is."""

    def __init__(self, split: Split, file: Path) -> None:
        self._split, self._records, self._file = split, read_truth_records(file), file
        self._tokenizer = Tokenizer.from_vocab(split.vocabulary_file)
        self.vocabulary = self._tokenizer.words

    def of(self, sample: int, row: np.void) -> dict[int, tuple[int, int]]:
        """By the number of the word's first token: positions mostly covered by what it names, positions touched by it."""
        record = self._split.record(sample)
        truth = self._records.get((record["id"], record["photo"]))
        if truth is None:
            raise ValueError(f"{self._file}: has no photograph {record['photo']} of product '{record['id']}', which the shards "
                             "have; give the truth.jsonl of their own catalogue")
        square = Lock(int(row["left"]), int(row["top"]), int(row["side"]), tuple(row["fill"].tolist()))
        scale = Image.open(io.BytesIO(self._split.read(sample))).width / truth["size"][0]
        _, offsets = self._tokenizer.encode_with_offsets(record["text"])
        out: dict[int, tuple[int, int]] = {}
        for part in truth["parts"]:
            box = np.array(part["box"]) * scale
            bits = covered_positions(box, square), touched_positions(box, square)
            for start, end in part["spans"]:
                for token, (first, last) in enumerate(offsets):
                    if first < end and last > start:
                        before = out.get(token, (0, 0))
                        out[token] = before[0] | bits[0], before[1] | bits[1]
        return out


def score_mode(
    captioner: Captioner, config: AlignConfig, split: Split, truth: Truth, samples: np.ndarray, mode: Mode, device: torch.device
) -> dict[str, Any]:
    """Scores of one mode, over all words and by kind."""
    size, settings = config.align.micro_batch, dataclasses.replace(config.align, mode=mode)
    aligner = Aligner(captioner, settings, split.manifest.vocabulary, truth.vocabulary, image_size=config.data.image_size,
                      max_tokens=config.data.max_tokens, grids=config.kaleido.grids)
    scores = {kind: PairScore() for kind in ("colour", "pattern", "part")}
    data = dataclasses.replace(config.data, alignment="none")
    batches = evaluation_batches(FromPhotographs(split), samples, data, seed=0, micro_batch=size, device=device,
                                 draw_text=False)
    with ProgressBar(-(-len(samples) // size), mode, "batch") as bar:
        for number, batch in enumerate(batches):
            numbers = samples[number * size : (number + 1) * size]
            rows = split.rows(numbers)
            alignments = aligner.align(batch.images[: len(numbers)], rows["tokens"], rows["num_tokens"])
            for sample, row, alignment in zip(numbers.tolist(), rows, alignments, strict=True):
                text = words_of(row["tokens"][: row["num_tokens"]].tolist(), truth.vocabulary)
                named = [word for word in text if names_something(word.text, settings.stop_words)]
                _add(scores, named, truth.of(sample, row), {entry.word.first: entry for entry in alignment.words})
            bar.update()
    return merged(list(scores.values())).result() | {"by_kind": {kind: score.result() for kind, score in scores.items()}}


def _add(
    scores: dict[str, PairScore], words: list[Word], truth: dict[int, tuple[int, int]], aligned: dict[int, WordPatches]
) -> None:
    for word in words:
        kind = kind_of_word(word.text)
        if kind and word.first in truth:
            entry = aligned.get(word.first)
            scores[kind].add(*truth[word.first], None if entry is None else entry.mask, 0 if entry is None else entry.strongest)


def describe_scores(result: dict[str, Any]) -> str:
    """One line a mode."""
    return "\n".join(
        f"{mode}: pointing {values['pointing_accuracy']:.1%} (random {values['pointing_random']:.1%}, centre "
        f"{values['pointing_centre']:.1%}); pairs: precision {values['precision']:.3f}, recall {values['recall']:.3f}, F1 "
        f"{values['f1']:.3f} (random {values['f1_random']:.3f}, centre {values['f1_centre']:.3f}); {values['words']:,} words, "
        f"{values['aligned_share']:.1%} aligned"
        for mode, values in ((mode, result[mode]) for mode in MODES))
