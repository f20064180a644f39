"""eval.json: everything that is measured of a run on held-out products (SPEC 9)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kaleido_fast.data.batches.batch import Batch
from kaleido_fast.data.batches.from_store import EncodedPhotographs
from kaleido_fast.data.batches.loader import evaluation_batches
from kaleido_fast.data.shards.manifest import Manifest
from kaleido_fast.data.shards.split import REPAIR, Split
from kaleido_fast.files import replace_text
from kaleido_fast.model.kaleido_bert import KaleidoBert
from kaleido_fast.model.weights import load_weights
from kaleido_fast.progress_bar import ProgressBar
from kaleido_fast.tasks.encoding import PatchRows, PooledEncoder
from kaleido_fast.tasks.examples import collect_examples
from kaleido_fast.tasks.headline import headline
from kaleido_fast.tasks.kaleido_accuracy import measure_kaleido_tasks
from kaleido_fast.tasks.products import read_products
from kaleido_fast.tasks.recognition import Recognisable, choose_products, pool_products, recognise
from kaleido_fast.tasks.retrieval import draw_retrieval, photographs_of, retrieval_report, retrieve, sum_of_recalls
from kaleido_fast.tasks.settings import EvalConfig, check_eval_settings
from kaleido_fast.training.build import rules_for
from kaleido_fast.training.checkpoint import latest_checkpoint
from kaleido_fast.training.run_folder import RunFolder
from kaleido_fast.training.stores.open import check_weights, open_store


def evaluate_run(run_folder: Path, config: EvalConfig) -> dict[str, Any]:
    """Evaluate a run's newest checkpoint, write eval.json and examples.json beside it, print the headline.

    Args:
        config: the run's settings, and what is to be measured.
    Returns:
        What eval.json holds.
    Raises:
        ValueError: the run has no whole checkpoint, or settings or shards cannot be used.
    """
    folder = RunFolder(run_folder)
    if config.model.attention == "varlen":
        raise ValueError(f"{run_folder}: evaluated in fp32, model.attention=varlen computes in 16 bit; give "
                         "model.attention=sdpa model.compile=false")
    checkpoint = latest_checkpoint(folder.checkpoints)
    if checkpoint is None:
        raise ValueError(
            f"{run_folder}: no checkpoint yet; go on with `kaleido-fast pretrain ... --resume auto`"
        )
    model = load_weights(checkpoint / "weights", config.model.attention).to(config.run.device)
    report, examples = evaluate(model, config)
    report = {"checkpoint": checkpoint.name, **report}
    replace_text(folder.path / "examples.json", json.dumps(examples))
    replace_text(folder.path / "eval.json", json.dumps(report, indent=1))
    print(headline(report))
    return report


def evaluate(model: KaleidoBert, config: EvalConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """All measures of a model in eval mode, and retrieval examples for the report.

    Raises:
        ValueError: settings that cannot be used; shards with another vocabulary; a split without products.
    """
    check_eval_settings(config.eval)
    settings, shards = config.eval, config.data.shards
    if shards:  # before a split of theirs is found to be empty
        Manifest.read(Path(shards)).require_photographs(Path(shards), "evaluate")
    split = Split.open(shards, settings.split)
    _check_vocabulary(model, split)
    heldout = _Heldout(model, config, split, settings.probe_test, settings.queries)
    retrieval, examples = heldout.retrieval()
    train = _Heldout(model, config, Split.open(shards, "train"), settings.probe_train)
    validation = _Heldout(model, config, Split.open(shards, "validation"), settings.probe_test)
    classes = {"category": len(split.manifest.categories), "subcategory": len(split.manifest.subcategories)}
    recognition = recognise(
        train.recognisable(), validation.recognisable(), heldout.recognisable(), classes, settings
    )
    broken = train.broken | validation.broken | heldout.broken
    return {
        **retrieval,
        **recognition,
        **heldout.kaleido_tasks(),
        "split": settings.split,
        "broken": broken,
    }, examples


class _Heldout:
    """A model on one split: every photograph that retrieval and recognition need is decoded and encoded, or read from the
    store under model.features=stored, once.

    Args:
        cap: products to recognise at most; 0: all.
        num_queries: retrieval queries a draw; 0: no retrieval.
    """

    def __init__(
        self, model: KaleidoBert, config: EvalConfig, split: Split, cap: int, num_queries: int = 0
    ) -> None:
        self.model, self.config, self.split, self.settings = model, config, split, config.eval
        self.store = open_store(config, split)
        check_weights(config, self.store, model)
        seed, num_draws = config.eval.seed, config.eval.draws if num_queries else 0
        self.products = read_products(split, config.data.max_tokens)
        self.draws = draw_retrieval(self.products, num_queries=num_queries, num_draws=num_draws, seed=seed)
        self.chosen = choose_products(len(self.products), cap, seed)
        samples = np.union1d(
            self.products.first_sample[self.chosen], photographs_of(self.products, self.draws)
        )
        rows = PatchRows(model, samples, self._batches(samples, self.store))
        limit = config.data.max_holes
        if len(rows.broken) > limit * len(samples):
            raise ValueError(f"{split.folder}: {len(rows.broken)} of {len(samples)} photographs of split '{split.name}' cannot "
                             f"be read, more than data.max_holes={limit:g} allows; {REPAIR}, or raise data.max_holes")
        shown = "cannot be read; shown as a grey picture" if self.store is None else "has no features in the store; shown as zeros"
        self.broken = {
            f"{split.name} sample {sample}": shown
            for sample in rows.broken
        }
        vocabulary = split.manifest.vocabulary
        self.encoder = PooledEncoder(
            model,
            rows,
            self.products,
            empty_text=(vocabulary.cls_id, vocabulary.sep_id),
            precision=config.eval.precision,
        )

    def retrieval(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """eval.json's "itr", "tir" and "sum_r", and the examples."""
        result = retrieve(self.products, self.draws, self.encoder, self.settings.batch_pairs)
        examples = collect_examples(result, self.products, self.split, self._batches, self.settings.examples)
        itr, tir = retrieval_report(result.itr), retrieval_report(result.tir)
        return {"itr": itr, "tir": tir, "sum_r": sum_of_recalls(itr, tir)}, examples

    def recognisable(self) -> Recognisable:
        """Pooled outputs and classes of the chosen products, each by its first photograph."""
        products, chosen = self.products, self.chosen
        pooled = pool_products(
            self.encoder.pooled,
            products.first_sample[chosen],
            chosen,
            products.lengths[chosen],
            self.settings.batch_pairs,
        )
        return Recognisable(pooled, products.category[chosen], products.subcategory[chosen])

    def kaleido_tasks(self) -> dict[str, Any]:
        """eval.json's "tasks", "tasks_level_alone" and "tasks_samples", on the split's first samples."""
        count = min(self.settings.kaleido_samples or self.split.num_samples, self.split.num_samples)
        rules = rules_for(self.config, self.split.manifest)
        batches = self._batches(np.arange(count), self.store)
        with ProgressBar(count, "kaleido tasks", "photo") as bar:
            return measure_kaleido_tasks(self.model, _counted(batches, bar), rules, self.settings.seed)

    def _batches(self, samples: np.ndarray, store: EncodedPhotographs | None = None) -> Iterator[Batch]:
        """The samples with their own texts under the evaluation epoch; without `store` their photographs."""
        return evaluation_batches(
            self.split,
            samples,
            self.config.data,
            seed=self.settings.seed,
            micro_batch=self.settings.batch_photographs,
            device=torch.device(self.config.run.device),
            draw_text=False,
            store=store,
        )


def _counted(batches: Iterator[Batch], bar: ProgressBar) -> Iterator[Batch]:
    """The batches; the bar moves when one is done with."""
    for batch in batches:
        yield batch
        bar.update(int((batch.host.samples >= 0).sum()))


def _check_vocabulary(model: KaleidoBert, split: Split) -> None:
    theirs, ours = split.manifest.vocabulary, model.vocabulary
    if (theirs.size, theirs.fingerprint) != (ours.size, ours.fingerprint):
        what = f"{theirs.size} ids, the model was trained on {ours.size}" if theirs.size != ours.size else \
            f"{theirs.size} ids as the model's has, but other words"
        raise ValueError(
            f"{split.folder}: its vocabulary has {what}; "
            "give the shards of the run, or shards prepared with their vocab.txt (`prepare --vocab`)"
        )
