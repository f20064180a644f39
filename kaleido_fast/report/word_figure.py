"""The alignments of a product in a folder of shards as a picture: `kaleido-fast explain --words`."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from kaleido_fast.alignment.align import CAPTIONER
from kaleido_fast.alignment.aligner import Aligner
from kaleido_fast.alignment.captioner_folder import load_captioner, require_fitting
from kaleido_fast.alignment.words import words_of
from kaleido_fast.config import load_config
from kaleido_fast.data.loader import evaluation_batches
from kaleido_fast.data.manifest import Manifest
from kaleido_fast.data.settings import DataSettings
from kaleido_fast.data.shards import Split
from kaleido_fast.data.stream import GROUP
from kaleido_fast.data.tokenizer import Tokenizer
from kaleido_fast.report.alignment_figure import ShownWord, alignment_figure
from kaleido_fast.report.figures import find_product

MOST_WORDS = 12


def explain_words(shards: Path, product_id: str | None, out: Path, alignment: str, run: Path | None) -> None:
    """Write a PNG of the aligned words of one product.

    Args:
        product_id: the first product of the test split without it.
        alignment: its name; without it the last that the manifest names.
        run: a folder that `align` wrote: the words are aligned anew by its captioner, and its attention is shown.
    Raises:
        ValueError: no such product, alignment or captioner.
    """
    Manifest.read(shards).require_photographs(shards, "explain")
    split, product = find_product(shards, product_id) if product_id else (Split.open(shards, "test"), 0)
    sample = int(split.products["first_sample"][product])
    name, words = _computed(split, sample, run) if run else _stored(split, sample, alignment)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(alignment_figure(_square(split, sample), words[:MOST_WORDS], name))


def _stored(split: Split, sample: int, alignment: str) -> tuple[str, list[ShownWord]]:
    name = alignment or next(reversed(split.manifest.alignments), "")
    if not name:
        raise ValueError(f"{split.folder}: has no alignments; make some with 'kaleido-fast align'")
    split.require_alignment(name)
    masks, row = split.alignment(np.array([sample]), name)[0], split.rows(np.array([sample]))[0]
    text = words_of(row["tokens"][: row["num_tokens"]].tolist(), Tokenizer.from_vocab(split.vocabulary_file).words)
    return name, [ShownWord(word.text, int(masks[word.first]), None) for word in text if masks[word.first]]


def _computed(split: Split, sample: int, run: Path) -> tuple[str, list[ShownWord]]:
    config = load_config(run / "align.yaml")
    folder = Path(config.align.captioner) if config.align.captioner else run / CAPTIONER
    captioner, shape, _ = load_captioner(folder)
    require_fitting(folder, shape, config, split.manifest)
    aligner = Aligner(captioner, config.align, split.manifest.vocabulary, Tokenizer.from_vocab(split.vocabulary_file).words,
                      image_size=config.data.image_size, max_tokens=config.data.max_tokens, grids=config.kaleido.grids)
    row = split.rows(np.array([sample]))
    square = torch.from_numpy(_square(split, sample, replace(config.data, alignment="none")))
    (found,) = aligner.align(square.unsqueeze(0), row["tokens"], row["num_tokens"])
    return config.align.alignment_name, [ShownWord(entry.word.text, entry.mask, entry.heat) for entry in found.words]


def _square(split: Split, sample: int, data: DataSettings = DataSettings()) -> np.ndarray:
    """(S, S, 3) uint8."""
    batch = next(evaluation_batches(split, np.array([sample]), data, seed=0, micro_batch=GROUP, device=torch.device("cpu"),
                                    draw_text=False))
    return batch.images[0].numpy().copy()
