"""eval.json: everything that is measured of a run on held-out products (SPEC 9)."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kaleido_fast.config import Config, load_config
from kaleido_fast.data.shards import Split
from kaleido_fast.model.kaleido_bert import KaleidoBert
from kaleido_fast.model.weights import load_weights
from kaleido_fast.tasks.encoding import PatchRows, PooledEncoder
from kaleido_fast.tasks.examples import collect_examples
from kaleido_fast.tasks.heldout import HeldoutReader, heldout_batches
from kaleido_fast.tasks.kaleido_accuracy import measure_kaleido_tasks
from kaleido_fast.tasks.products import Products, read_products
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
    split = Split.open(config.data.shards, config.eval.split)
    _check_vocabulary(model, split)
    reader = HeldoutReader(split, config.data, torch.device(config.run.device))
    products = read_products(split, config.data.max_tokens)
    retrieval, examples = _retrieval(model, config, split, products, reader)
    recognition = _recognition(model, config, split)
    batches = heldout_batches(split, config.data, reader, config.eval.kaleido_samples, config.eval.batch_photographs)
    tasks = measure_kaleido_tasks(model, batches, rules_for(config, split.manifest), config.eval.seed)
    return {**retrieval, **recognition, **tasks, "split": config.eval.split, "broken": reader.broken}, examples


def headline(report: dict[str, Any]) -> str:
    """The first figures in a few words, with protocol and chance."""
    itr, tir = report["itr"], report["tir"]
    recalls = [f"{name} R@1 {100 * one['R@1']:.1f} % R@10 {100 * one['R@10']:.1f} %" for name, one in (("ITR", itr), ("TIR", tir))]
    category = 100 * report["category"]["image"]["accuracy"]
    return (f"{', '.join(recalls)} (1 in {itr['candidates']}, {itr['queries']} queries; chance R@1 {100 / itr['candidates']:.1f} %, "
            f"R@10 {min(1000 / itr['candidates'], 100):.1f} %); category from the image alone {category:.1f} %")


def _retrieval(
    model: KaleidoBert, config: Config, split: Split, products: Products, reader: HeldoutReader
) -> tuple[dict[str, Any], dict[str, Any]]:
    settings = config.eval
    draws = draw_retrieval(products, num_queries=settings.queries, num_draws=settings.draws, seed=settings.seed)
    rows = PatchRows(model, photographs_of(products, draws), reader, settings.batch_photographs)
    encoder = _encoder(model, config, split, rows, products)
    result = retrieve(products, draws, encoder, settings.batch_pairs)
    examples = collect_examples(result, products, split, reader, settings.examples)
    return {"itr": retrieval_report(result.itr), "tir": retrieval_report(result.tir)}, examples


def _recognition(model: KaleidoBert, config: Config, test: Split) -> dict[str, Any]:
    """The probe learns from train, is tuned on validation and measured on `test`."""
    caps = {"train": config.eval.probe_train, "validation": config.eval.probe_test, "test": config.eval.probe_test}
    splits = {"train": Split.open(config.data.shards, "train"), "validation": Split.open(config.data.shards, "validation"),
              "test": test}
    seen = {name: _pooled(model, config, split, caps[name]) for name, split in splits.items()}
    classes = {"category": len(test.manifest.categories), "subcategory": len(test.manifest.subcategories)}
    return recognise(seen["train"], seen["validation"], seen["test"], classes, config.eval)


def _pooled(model: KaleidoBert, config: Config, split: Split, cap: int) -> Recognisable:
    products = read_products(split, config.data.max_tokens)
    chosen = choose_products(len(products), cap, config.eval.seed)
    samples = products.first_sample[chosen]
    reader = HeldoutReader(split, config.data, torch.device(config.run.device))
    rows = PatchRows(model, np.sort(samples), reader, config.eval.batch_photographs)
    encoder = _encoder(model, config, split, rows, products)
    pooled = pool_products(encoder.pooled, samples, chosen, products.lengths[chosen], config.eval.batch_pairs)
    return Recognisable(pooled, products.category[chosen], products.subcategory[chosen])


def _encoder(
    model: KaleidoBert, config: Config, split: Split, rows: PatchRows, products: Products
) -> PooledEncoder:
    vocabulary = split.manifest.vocabulary
    return PooledEncoder(model, rows, products, empty_text=(vocabulary.cls_id, vocabulary.sep_id),
                         precision=config.eval.precision)


def _check_vocabulary(model: KaleidoBert, split: Split) -> None:
    size = split.manifest.vocabulary.size
    if size != model.vocabulary.size:
        raise ValueError(f"{split.folder}: its vocabulary has {size} ids, the model was trained on {model.vocabulary.size}; "
                         "give the shards of the run, or shards prepared with their vocab.txt (`prepare --vocab`)")
