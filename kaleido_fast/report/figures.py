"""The kaleido figure of a product in a folder of shards: `kaleido-fast explain`, and a run's report."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from kaleido_fast.config import Config
from kaleido_fast.data.batch import Batch
from kaleido_fast.data.loader import evaluation_batches
from kaleido_fast.data.manifest import Manifest
from kaleido_fast.data.settings import DataSettings
from kaleido_fast.data.shards import Split
from kaleido_fast.data.tokenizer import Tokenizer
from kaleido_fast.kernels.plan import GROUP, NONE, Plan, PlanRules, plan
from kaleido_fast.model.kaleido_tasks import plan_rules
from kaleido_fast.model.settings import KaleidoSettings
from kaleido_fast.report.kaleido_figure import kaleido_figure

EPOCHS_TRIED = 64  # the first of them that changes every level is drawn
EXPLAIN_PATCH_SIZE = 96  # larger than any model's, so that the picture is sharp


def explain(shards: Path, product_id: str | None, out: Path) -> None:
    """Write a PNG of one product under the five tasks.

    Args:
        product_id: the first product of the test split without it.
    Raises:
        ValueError: there is no such product, or the shards have no photographs.
    """
    Manifest.read(shards).require_photographs(shards, "explain")
    split, product = (Split.open(shards, "test"), 0) if product_id is None else find_product(shards, product_id)
    out.parent.mkdir(parents=True, exist_ok=True)
    settings = DataSettings(shards=str(shards), alignment=_alignment(split))
    out.write_bytes(
        _figure(split, product, settings, KaleidoSettings(patch_size=EXPLAIN_PATCH_SIZE))
    )


def run_figure(config: Config) -> bytes:
    """A PNG of the first product of the split that a run was evaluated on, under the run's own settings."""
    return _figure(Split.open(config.data.shards, config.eval.split), 0, config.data, config.kaleido)


def _figure(split: Split, product: int, data: DataSettings, kaleido: KaleidoSettings) -> bytes:
    sample = int(split.products["first_sample"][product])
    group = np.arange(sample, sample + GROUP) % split.num_samples  # donors come from the neighbours
    batch = next(
        evaluation_batches(
            split, group, data, seed=0, micro_batch=GROUP, device=torch.device("cpu"), draw_text=False
        )
    )
    vocabulary = split.manifest.vocabulary
    rules = plan_rules(
        kaleido,
        mask_id=vocabulary.mask_id,
        ordinary_first=vocabulary.ordinary_first,
        ordinary_last=vocabulary.ordinary_last,
    )
    drawn = _first_that_changes_all(batch, 0, rules)
    words = Tokenizer.from_vocab(split.vocabulary_file).words
    last = int(batch.host.lengths[0]) - 1
    plain, masked = (_text(ids[0, 1:last].tolist(), words) for ids in (batch.tokens, drawn.masked_tokens))
    return kaleido_figure(batch.images, drawn, 0, kaleido, (plain, masked))


def _first_that_changes_all(batch: Batch, row: int, rules: PlanRules) -> Plan:
    """The plan of the first epoch that turns and moves something, so that all tasks show; else the last."""
    for epoch in range(EPOCHS_TRIED):
        shown = replace(batch, epochs=torch.full_like(batch.epochs, epoch))
        drawn = plan(
            shown.tokens,
            shown.lengths,
            shown.alignment,
            shown.keys,
            shown.image_products,
            shown.text_products,
            shown.present,
            shown.match,
            torch.tensor(0),
            shown.epochs,
            rules,
        )
        if drawn.rotation[row] and drawn.permutation[row] and drawn.donor[row] != NONE:
            break
    return drawn


def _text(ids: list[int], words: tuple[str, ...]) -> str:
    """Word pieces joined to words."""
    return " ".join(words[i] for i in ids).replace(" ##", "")


def find_product(shards: Path, product_id: str) -> tuple[Split, int]:
    """The split that has a product, and its rank there."""
    splits = [Split.open(shards, name) for name, entry in Manifest.read(shards).splits.items() if sum(entry.samples)]
    for split in splits:
        rank = int(np.searchsorted(split.products["id"], product_id.encode()))
        if rank < len(split.products) and split.products["id"][rank] == product_id.encode():
            return split, rank
    ids = [product.decode() for split in splits for product in split.products["id"][:1]]
    raise ValueError(f"{shards}: no product '{product_id}' there; it has such as {', '.join(map(repr, ids))}")


def _alignment(split: Split) -> str:
    return next(iter(split.manifest.alignments), "none")
