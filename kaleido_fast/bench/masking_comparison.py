"""Alignment-guided masking (AGM) beside random masking: finished runs, all measured on the same batches and plans.

A run's losses depend on what was masked, so each run is measured twice on the test split: under the plan of random masking
and under the plan that the alignment guides (SPEC 6), both of the evaluation epoch and of one seed for all runs. Features,
texts and mismatched pairs are the same in both. Weights are in evaluation mode, arithmetic in fp32.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kaleido_fast.bench.environment import describe_environment
from kaleido_fast.bench.masking_runs import ARMS, FinishedRun, check_arms
from kaleido_fast.data.batches.loader import evaluation_batches
from kaleido_fast.data.shards.split import Split
from kaleido_fast.kernels.plan_outputs import Plan
from kaleido_fast.model.weights import load_weights
from kaleido_fast.progress_bar import ProgressBar
from kaleido_fast.training.build import rules_for
from kaleido_fast.training.checkpoint import OLDER
from kaleido_fast.training.step import PretrainStep
from kaleido_fast.training.stores.open import check_weights, open_source
from kaleido_fast.training.telemetry import TaskMeter
from kaleido_fast.training.workers.group import Workers, own_device

SEED = 0  # of plans and mismatched texts, whatever the run's
RECALLS = (1, 10)
UNDERPOWERED, DIFFERS = "underpowered", "differs"
# Student's t at 97.5 %, by degrees of freedom: the half width of a 95 % interval in standard errors.
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}

Measures = dict[str, float]


def masking_study(
    arms: Mapping[str, Sequence[FinishedRun]], alignment: str, shards: str = "", samples: int = 0
) -> dict[str, Any]:
    """Compare finished runs.

    Args:
        arms: the runs under "random" and "guided", one a seed, alike but for the masking.
        alignment: what the guided runs were trained with; guides the guided plan.
        shards: where the runs' shards lie now; "": where the first run found them.
        samples: of the test split; 0: all.
    Returns:
        "about", "runs" (measures of each), "arms" (mean, least and most over the seeds) and "difference" (guided less random,
        paired by seed, with its standard error, 95 % interval and verdict).
    Raises:
        ValueError: an arm is missing, a run cannot be used, or runs differ in more than masking and seed.
    """
    if sorted(arms) != sorted(ARMS) or not all(arms.values()) or len(arms["random"]) > len(STUDENT) + 1:
        raise ValueError(f"arms: found { {arm: len(runs) for arm, runs in arms.items()} } runs; give both arms, random and "
                         f"guided, with one to {len(STUDENT) + 1} runs each")
    runs: dict[str, list[FinishedRun]] = {arm: sorted(arms[arm], key=lambda run: run.seed) for arm in ARMS}
    shards = shards or runs["random"][0].config.data.shards
    check_arms(runs, alignment, Path(shards))
    split = Split.open(shards, "test")
    count = min(samples or split.num_samples, split.num_samples)
    measured, guided = {}, {}
    with ProgressBar(count * sum(map(len, runs.values())), "test split", "photo") as bar:
        for arm in ARMS:
            results = [measure_run(run, arm, alignment, split, count, bar) for run in runs[arm]]
            measured[arm], guided[arm] = [measures for measures, _ in results], results[0][1]
    evaluation = runs["random"][0].evaluation["itr"]
    return {
        "about": {
            "alignment": alignment, "split": "test", "samples": count, "guided_share": guided["guided"],
            "seeds": [run.seed for run in runs["random"]], "queries": evaluation["queries"] * evaluation["draws"],
            "candidates": evaluation["candidates"], "chance": {f"R@{k}": k / evaluation["candidates"] for k in RECALLS},
            "environment": describe_environment(own_device(runs["random"][0].config.run.device)),
        },
        "runs": {arm: [{"folder": run.folder.name, "seed": run.seed, "samples": run.samples, "minutes": run.minutes,
                        "measures": one} for run, one in zip(runs[arm], measured[arm], strict=True)] for arm in ARMS},
        "arms": {arm: spread_of(measured[arm]) for arm in ARMS},
        "difference": paired_difference(measured["random"], measured["guided"]),
    }


@torch.no_grad()
def measure_run(
    run: FinishedRun, arm: str, alignment: str, split: Split, count: int, bar: ProgressBar
) -> tuple[Measures, float]:
    """A run's measures, by name ("guided/amlm_loss", "own/...", "itr/R@1"), and the share of samples that the alignment masks
    otherwise than the random plan does.

    Raises:
        ValueError: shards without this alignment, or a feature store that does not fit.
    """
    config = replace(run.config, data=replace(run.config.data, alignment=alignment, shards=str(split.folder)))
    device, source = own_device(config.run.device), open_source(config, split)
    model = load_weights(run.checkpoint / "weights", "sdpa", OLDER).to(device)  # in fp32, which varlen has not
    check_weights(config, source, model)
    steps = {masking: PretrainStep(
        model, rules_for(replace(config, kaleido=replace(config.kaleido, masking=masking)), split.manifest), SEED, {},
        config.train.losses_on_mismatched, config.reference).to(device).eval() for masking in ARMS}
    meters, changed, seen = {masking: TaskMeter() for masking in ARMS}, 0, 0
    for batch in evaluation_batches(source, np.arange(count), config.data, seed=SEED, micro_batch=config.eval.batch_photographs,
                                    device=device, draw_text=True):
        plans = {masking: step.plan_of(batch) for masking, step in steps.items()}
        for masking, step in steps.items():
            num_rows = step.count(batch)
            meters[masking].add(step(replace(batch, plan=plans[masking]), num_rows, num_rows, None), num_rows)
        changed += int((_differs(plans["random"], plans["guided"]) & batch.present).sum())
        seen += int(batch.host.present.sum())
        bar.update(int((batch.host.samples >= 0).sum()))
    measures: Measures = {}
    for masking in ARMS:
        report = meters[masking].read(Workers(0, 1))
        for name, masked in ((masking, True), ("own", masking == arm)):
            if masked:
                measures |= {f"{name}/{task}_loss": value for task, value in report["losses"].items() if task != "total"}
                measures |= {f"{name}/{task}_accuracy": value for task, value in report["accuracy"].items()}
    for direction in ("itr", "tir"):
        measures |= {f"{direction}/R@{k}": run.evaluation[direction][f"R@{k}"] for k in RECALLS}
    return measures, changed / max(seen, 1)


def paired_difference(random: Sequence[Measures], guided: Sequence[Measures]) -> dict[str, dict[str, Any]]:
    """By measure, guided less random over pairs of one seed: "mean", "standard_error" and a 95 % "interval" by Student's t, and
    "verdict": underpowered where the interval covers 0, or where one pair gives none."""
    differences = {}
    for name in random[0]:
        pairs = [theirs[name] - ours[name] for ours, theirs in zip(random, guided, strict=True)]
        mean, error, interval = statistics.fmean(pairs), None, None
        if len(pairs) > 1:
            error = statistics.stdev(pairs) / math.sqrt(len(pairs))
            half = STUDENT[len(pairs) - 1] * error
            interval = [mean - half, mean + half]
        covers = interval is None or interval[0] <= 0 <= interval[1]
        differences[name] = {"mean": mean, "standard_error": error, "interval": interval,
                       "verdict": UNDERPOWERED if covers else DIFFERS}
    return differences


def spread_of(runs: Sequence[Measures]) -> dict[str, Measures]:
    """By measure its mean, least and most over runs."""
    return {name: {"mean": statistics.fmean(values), "min": min(values), "max": max(values)}
            for name in runs[0] for values in [[one[name] for one in runs]]}


def _differs(ours: Plan, theirs: Plan) -> torch.Tensor:
    """(B,) bool: samples of which other words are masked or other patches shown."""
    return (ours.masked_positions != theirs.masked_positions).any(1) | (ours.source != theirs.source).any(1)
