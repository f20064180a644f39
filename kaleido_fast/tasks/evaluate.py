"""eval.json: everything that is measured of a run on held-out products (SPEC 9)."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kaleido_fast.config import Config, load_config
from kaleido_fast.data.batch import Batch
from kaleido_fast.data.loader import evaluation_batches
from kaleido_fast.data.shards import Split
from kaleido_fast.model.kaleido_bert import KaleidoBert
from kaleido_fast.model.weights import load_weights
from kaleido_fast.tasks.encoding import PatchRows, PooledEncoder
from kaleido_fast.tasks.examples import collect_examples
from kaleido_fast.tasks.kaleido_accuracy import measure_kaleido_tasks
from kaleido_fast.tasks.products import read_products
from kaleido_fast.tasks.recognition import Recognisable, choose_products, pool_products, recognise
from kaleido_fast.tasks.retrieval import draw_retrieval, photographs_of, retrieval_report, retrieve
from kaleido_fast.tasks.settings import check_eval_settings
from kaleido_fast.training.build import rules_for
from kaleido_fast.training.checkpoint import latest_checkpoint
from kaleido_fast.training.run_folder import RunFolder, replace_text


def evaluate_run(run_folder: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Evaluate a run's newest checkpoint; write eval.json and examples.json into its folder and print the headline.

    Args:
        overrides: `key=value` laid over the run's own settings, such as eval.queries=1000.
    Returns:
        What eval.json holds.
    Raises:
        ValueError: the folder is not a run, it has no whole checkpoint, or settings or shards cannot be used.
    """
    folder = RunFolder(run_folder)
    if not folder.config_file.is_file():
        raise ValueError(f"{run_folder}: no config.yaml, so not a run; give a folder that `kaleido-fast pretrain` wrote")
    config = load_config(folder.config_file, overrides)
    checkpoint = latest_checkpoint(folder.checkpoints)
    if checkpoint is None:
        raise ValueError(f"{run_folder}: no checkpoint yet; go on with `kaleido-fast pretrain ... --resume auto`")
    model = load_weights(checkpoint / "weights").to(config.run.device)
    report, examples = evaluate(model, config)
    report = {"checkpoint": checkpoint.name, **report}
    replace_text(folder.path / "examples.json", json.dumps(examples))
    replace_text(folder.path / "eval.json", json.dumps(report, indent=1))
    print(headline(report))
    return report


def evaluate(model: KaleidoBert, config: Config) -> tuple[dict[str, Any], dict[str, Any]]:
    """All measures of a model in eval mode, and retrieval examples for the report.

    Raises:
        ValueError: settings that cannot be used; shards with another vocabulary; a split without products.
    """
    check_eval_settings(config.eval)
    heldout = _Heldout(model, config, Split.open(config.data.shards, config.eval.split))
    _check_vocabulary(model, heldout.split)
    retrieval, examples = heldout.retrieval()
    recognition = _recognise(model, config, heldout)
    tasks = heldout.kaleido_tasks()
    return {**retrieval, **recognition, **tasks, "split": config.eval.split, "broken": heldout.broken}, examples


def headline(report: dict[str, Any]) -> str:
    """The first figures in a few words, with protocol and chance."""
    itr, tir = report["itr"], report["tir"]
    recalls = [f"{name} R@1 {100 * one['R@1']:.1f} % R@10 {100 * one['R@10']:.1f} %" for name, one in (("ITR", itr), ("TIR", tir))]
    category = 100 * report["category"]["image"]["accuracy"]
    return (f"{', '.join(recalls)} (1 in {itr['candidates']}, {itr['queries']} queries; chance R@1 {100 / itr['candidates']:.1f} %, "
            f"R@10 {min(1000 / itr['candidates'], 100):.1f} %); category from the image alone {category:.1f} %")


def _recognise(model: KaleidoBert, config: Config, heldout: "_Heldout") -> dict[str, Any]:
    """The probe learns from train, is tuned on validation and measured on the held-out split."""
    settings, manifest = config.eval, heldout.split.manifest
    train, validation = (_Heldout(model, config, Split.open(config.data.shards, name)) for name in ("train", "validation"))
    classes = {"category": len(manifest.categories), "subcategory": len(manifest.subcategories)}
    return recognise(
        train.recognisable(settings.probe_train), validation.recognisable(settings.probe_test),
        heldout.recognisable(settings.probe_test), classes, settings,
    )


class _Heldout:
    """A model on one split."""

    def __init__(self, model: KaleidoBert, config: Config, split: Split) -> None:
        self.model, self.config, self.split = model, config, split
        self.settings = config.eval
        self.products = read_products(split, config.data.max_tokens)
        self.broken: dict[str, str] = {}

    def retrieval(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """eval.json's "itr" and "tir", and the examples."""
        settings = self.settings
        draws = draw_retrieval(self.products, num_queries=settings.queries, num_draws=settings.draws, seed=settings.seed)
        encoder = self._encoder(photographs_of(self.products, draws))
        result = retrieve(self.products, draws, encoder, settings.batch_pairs)
        examples = collect_examples(result, self.products, self.split, self._batches, settings.examples)
        return {"itr": retrieval_report(result.itr), "tir": retrieval_report(result.tir)}, examples

    def recognisable(self, cap: int) -> Recognisable:
        """Pooled outputs and classes of at most `cap` products (0: all), each by its first photograph."""
        products = self.products
        chosen = choose_products(len(products), cap, self.settings.seed)
        samples = products.first_sample[chosen]
        encoder = self._encoder(np.sort(samples))
        pooled = pool_products(encoder.pooled, samples, chosen, products.lengths[chosen], self.settings.batch_pairs)
        return Recognisable(pooled, products.category[chosen], products.subcategory[chosen])

    def kaleido_tasks(self) -> dict[str, Any]:
        """eval.json's "tasks", "tasks_level_alone" and "tasks_samples", on the split's first samples."""
        count = min(self.settings.kaleido_samples or self.split.num_samples, self.split.num_samples)
        rules = rules_for(self.config, self.split.manifest)
        return measure_kaleido_tasks(self.model, self._batches(np.arange(count)), rules, self.settings.seed)

    def _encoder(self, samples: np.ndarray) -> PooledEncoder:
        rows = PatchRows(self.model, samples, self._batches(samples))
        self.broken |= {f"{self.split.name} sample {sample}": "cannot be read; shown as a grey picture" for sample in rows.broken}
        vocabulary = self.split.manifest.vocabulary
        return PooledEncoder(self.model, rows, self.products, empty_text=(vocabulary.cls_id, vocabulary.sep_id),
                             precision=self.settings.precision)

    def _batches(self, samples: np.ndarray) -> Iterator[Batch]:
        """The samples with their own texts under the evaluation epoch."""
        return evaluation_batches(
            self.split, samples, self.config.data, seed=self.settings.seed, micro_batch=self.settings.batch_photographs,
            device=torch.device(self.config.run.device), draw_text=False,
        )


def _check_vocabulary(model: KaleidoBert, split: Split) -> None:
    size = split.manifest.vocabulary.size
    if size != model.vocabulary.size:
        raise ValueError(f"{split.folder}: its vocabulary has {size} ids, the model was trained on {model.vocabulary.size}; "
                         "give the shards of the run, or shards prepared with their vocab.txt (`prepare --vocab`)")
