"""Figures of products in a folder of shards: `kaleido-fast explain`, and a run's report."""

import io
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from kaleido_fast.config import Config, load_align_config, load_run_config
from kaleido_fast.data.batches.batch import Batch
from kaleido_fast.data.batches.from_photographs import FromPhotographs
from kaleido_fast.data.batches.loader import evaluation_batches
from kaleido_fast.data.catalogue.locking import Lock
from kaleido_fast.data.settings import DataSettings
from kaleido_fast.data.shards.manifest import Manifest
from kaleido_fast.data.shards.split import BrokenSample, Split
from kaleido_fast.data.shards.tokenizer import Tokenizer
from kaleido_fast.kernels.plan import plan
from kaleido_fast.kernels.plan_outputs import Plan
from kaleido_fast.kernels.plan_rules import GROUP, PlanRules
from kaleido_fast.model.kaleido_tasks import plan_rules
from kaleido_fast.model.settings import KaleidoSettings
from kaleido_fast.options import Option, OptionError
from kaleido_fast.report.kaleido_panels import changes
from kaleido_fast.report.product_figure import DOTS_PER_INCH, LockedPhotograph, ShownProduct, product_figure
from kaleido_fast.report.shown_words import computed_words, stored_words
from kaleido_fast.report.word_panels import ShownWords
from kaleido_fast.training.run.folder import RunFolder

EPOCHS_TRIED = 64  # the first of them that changes every level is drawn
EXPLAIN_PATCH_SIZE = 96  # larger than any model's, so that the picture is sharp
REPORTED, REPORT_DOTS_PER_INCH = 6, 90  # figures of a report, and their size


def explain(shards: Path, product_id: str | None, out: Path, alignment: str = "", run: Path | None = None,
            chosen: Sequence[str] = ()) -> None:
    """Write a PNG of one product.

    Args:
        product_id: the first product of the test split without it.
        alignment: its name; without it the run's, or the last that the manifest names.
        run: a folder that `pretrain` or `align` wrote: tasks, grids, masking and seed are its own; an align run's captioner
            aligns the words anew. Without it they are the paper's.
        chosen: words to show; without them all that are aligned, as far as there is room.
    Raises:
        ValueError: there is no such product, alignment, captioner or word, or the shards have no photographs.
    """
    Manifest.read(shards).require_photographs(shards, "explain")
    split, product = (Split.open(shards, "test"), 0) if product_id is None else find_product(shards, product_id)
    is_trained = run is not None and RunFolder(run).config_file.is_file()
    config = Config() if run is None else load_run_config(run) if is_trained else load_align_config(run)
    name = alignment or (config.data.alignment if is_trained else next(reversed(split.manifest.alignments), "none"))
    split.require_alignment(name)
    samples = split.products["first_sample"][[product]].tolist()
    (words,) = stored_words(split, samples, name) if run is None or is_trained else computed_words(split, samples, run)
    data = replace(config.data, shards=str(shards), alignment=name)
    kaleido = replace(config.kaleido, patch_size=EXPLAIN_PATCH_SIZE)
    (figure,) = _figures(split, [product], data, kaleido, [_chosen(words, chosen, split, product)], config.train.seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(figure)


def run_figures(config: Config) -> list[bytes]:
    """PNGs of products evenly spread over the split a run was evaluated on, under the run's settings, seed and alignment."""
    split = Split.open(config.data.shards, config.eval.split)
    count = min(REPORTED, split.num_products)
    products = (np.arange(count) * split.num_products // count).tolist()
    words = stored_words(split, split.products["first_sample"][products].tolist(), config.data.alignment)
    return _figures(split, products, config.data, config.kaleido, words, config.train.seed, REPORT_DOTS_PER_INCH)


def _figures(
    split: Split, products: list[int], data: DataSettings, kaleido: KaleidoSettings, words: list[ShownWords], seed: int = 0,
    dots_per_inch: int = DOTS_PER_INCH,
) -> list[bytes]:
    samples = split.products["first_sample"][products]
    group = _group(samples, split.num_samples)
    batch = next(evaluation_batches(FromPhotographs(split), group, data, seed=0, micro_batch=GROUP,
                                    device=torch.device("cpu"), draw_text=False))
    batch = replace(batch, alignment=_alignment(batch, words))
    vocabulary = split.manifest.vocabulary
    rules = plan_rules(kaleido, mask_id=vocabulary.mask_id, ordinary_first=vocabulary.ordinary_first,
                       ordinary_last=vocabulary.ordinary_last)
    pieces = Tokenizer.from_vocab(split.vocabulary_file).words
    figures = []
    for row, (product, aligned_words) in enumerate(zip(products, words, strict=True)):
        epoch, drawn = _first_that_changes_all(batch, row, rules, seed)
        read = partial(_text, drawn.masked_tokens[row].tolist(), pieces)
        last = int(batch.host.lengths[row]) - 2
        shown = ShownProduct(
            split.products["id"][product].decode(), _photograph(split, int(samples[row])), batch.images, drawn, row, epoch,
            _text(batch.tokens[row].tolist(), pieces, 0, last), read(0, last), aligned_words, read)
        figures.append(product_figure(shown, kaleido, dots_per_inch))
    return figures


def _group(samples: np.ndarray, num_samples: int) -> np.ndarray:
    """The samples, then those behind the last of them as far as a group goes: they may be donors."""
    behind = (samples[-1] + 1 + np.arange(min(num_samples, 2 * GROUP))) % num_samples
    return np.concatenate([samples, behind[~np.isin(behind, samples)]])[:GROUP]


def _alignment(batch: Batch, words: list[ShownWords]) -> torch.Tensor:
    """(B, T) int64: the batch's, with the masks of words that were aligned anew."""
    alignment = batch.alignment.clone()
    for row, aligned_words in enumerate(words):
        if aligned_words.masks is not None:
            inside = int(batch.host.lengths[row]) - 2
            alignment[row, 1 : 1 + inside] = torch.from_numpy(aligned_words.masks[:inside])
    return alignment


def _first_that_changes_all(batch: Batch, row: int, rules: PlanRules, seed: int) -> tuple[int, Plan]:
    """The first epoch that turns and moves something, so that all tasks show, and its plan; else the last that was tried."""
    for epoch in range(EPOCHS_TRIED):
        drawn = plan(batch.plan_inputs._replace(epochs=torch.full_like(batch.epochs, epoch)), torch.tensor(seed), rules)
        if all(changes(drawn, row, task, rules) for task in rules.tasks):
            break
    return epoch, drawn


def _photograph(split: Split, sample: int) -> LockedPhotograph | None:
    row = split.rows(np.array([sample]))[0]
    try:
        pixels = np.asarray(Image.open(io.BytesIO(split.read(sample)), formats=["JPEG"]).convert("RGB"))
    except (BrokenSample, OSError, SyntaxError):
        return None
    return LockedPhotograph(pixels, Lock(int(row["left"]), int(row["top"]), int(row["side"]), tuple(row["fill"].tolist())))


def _text(ids: list[int], pieces: Sequence[str], first: int, last: int) -> str:
    """Tokens first..last - 1 of a text behind its [CLS], pieces joined to words."""
    return " ".join(pieces[i] for i in ids[1 + first : 1 + last]).replace(" ##", "")


def _chosen(shown: ShownWords, chosen: Sequence[str], split: Split, product: int) -> ShownWords:
    """The words that were asked for; ValueError where one is not among them."""
    known = {word.text for word in shown.words}
    for word in chosen:
        if word.lower() not in known:
            aligned = ", ".join(sorted(known)) or "none"
            name = split.products["id"][product].decode()
            raise OptionError(Option("words"), f"={word}: not aligned in product '{name}'; aligned are: {aligned}")
    wanted = {word.lower() for word in chosen} or known
    return shown._replace(words=[word for word in shown.words if word.text in wanted])


def find_product(shards: Path, product_id: str) -> tuple[Split, int]:
    """The split that has a product, and its rank there."""
    splits = [Split.open(shards, name) for name, entry in Manifest.read(shards).splits.items() if sum(entry.samples)]
    for split in splits:
        rank = int(np.searchsorted(split.products["id"], product_id.encode()))
        if rank < len(split.products) and split.products["id"][rank] == product_id.encode():
            return split, rank
    ids = [product.decode() for split in splits for product in split.products["id"][:1]]
    raise ValueError(f"{shards}: no product '{product_id}' there; it has such as {', '.join(map(repr, ids))}")
