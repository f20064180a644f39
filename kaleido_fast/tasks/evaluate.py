"""eval.json: everything that is measured of a run on held-out products (SPEC 9)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kaleido_fast.data.shards.manifest import Manifest
from kaleido_fast.files import replace_text
from kaleido_fast.model.attention.packed import AUTO
from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from kaleido_fast.model.weights import load_weights
from kaleido_fast.tasks.heldout import HeldOut, SplitRole
from kaleido_fast.tasks.measure import Measure
from kaleido_fast.tasks.measures import MEASURES, headline
from kaleido_fast.tasks.products import Products
from kaleido_fast.tasks.settings import EvalConfig
from kaleido_fast.training.checkpoint import OLDER, chosen_checkpoint
from kaleido_fast.training.run.folder import RunFolder
from kaleido_fast.training.workers.group import own_device


def evaluate_run(
    run_folder: Path, config: EvalConfig, measures: Mapping[str, Measure] = MEASURES, per_sample: Path | None = None
) -> dict[str, Any]:
    """Evaluate a run's newest checkpoint, or the one that its validation chose; write eval.json and examples.json beside it,
    print the headline.

    Args:
        config: the run's settings, and what is to be measured.
        measures: those of a pre-trained model; a downstream task gives its own.
        per_sample: file that takes a JSON line for each query and each product that was measured.
    Returns:
        What eval.json holds.
    Raises:
        ValueError: the run has no whole checkpoint, or settings or shards cannot be used.
    """
    folder = RunFolder(run_folder)
    if config.model.attention == "varlen":
        raise ValueError(f"{run_folder}: evaluated in fp32, model.attention=varlen computes in 16 bit; give "
                         "model.attention=auto")
    checkpoint = chosen_checkpoint(run_folder)
    device = own_device(config.run.device)
    model = load_weights(checkpoint / "weights", AUTO, OLDER)
    picked = model.attend_by(config.model.attention, device, "fp32")  # kaleido tasks are measured in fp32 in any case
    if config.model.attention == AUTO:
        print(f"model.attention={AUTO}: {picked}")
    model = model.to(device)
    lines: list[dict[str, Any]] = []
    report, examples = evaluate(model, config, measures, lines)
    report = {"checkpoint": checkpoint.name, **report}
    if per_sample is not None:
        replace_text(per_sample, "".join(json.dumps(line) + "\n" for line in lines))
    replace_text(folder.path / "examples.json", json.dumps(examples))
    replace_text(folder.path / "eval.json", json.dumps(report, indent=1))
    print(headline(report, measures))
    return report


def evaluate(
    model: KaleidoBertModel, config: EvalConfig, measures: Mapping[str, Measure] = MEASURES,
    per_sample: list[dict[str, Any]] | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `measures` give of a model in eval mode: the contents of eval.json, and of examples.json.

    Args:
        per_sample: takes a line for each query and each product, with the "measure" that it is of.
    Raises:
        ValueError: shards with another vocabulary; a split without products.
    """
    measures = {name: measure for name, measure in measures.items() if measure.asked(config.eval)}

    def needed(role: SplitRole, products: Products) -> np.ndarray:
        return np.concatenate([measure.samples(role, products, config.eval) for measure in measures.values()])

    heldout = HeldOut(model, config, needed)
    numbers: dict[str, Any] = {}
    examples: dict[str, Any] = {}
    pictures: dict[str, str] = {}
    for name, measure in measures.items():
        result = measure.measure(heldout)
        assert set(measure.keys) <= set(result.numbers) <= {*measure.keys, *measure.further}, \
            f"{name} wrote {list(result.numbers)}, its row names {measure.keys} and {measure.further}"
        numbers |= result.numbers
        examples |= result.examples
        pictures |= result.pictures
        if per_sample is not None:
            per_sample += [{"measure": name, **line} for line in result.per_sample]
    fingerprint = Manifest.read(Path(config.data.shards)).fingerprint
    return numbers | {"split": config.eval.split, "data_fingerprint": fingerprint,
                      "broken": heldout.broken}, examples | {"pictures": pictures}
