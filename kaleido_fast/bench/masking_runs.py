"""Finished runs of a comparison of maskings: read, and refused where more than the masking and the seed differs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kaleido_fast.data.shards.manifest import Manifest
from kaleido_fast.model.settings import Masking
from kaleido_fast.options import GO_ON, OptionError
from kaleido_fast.settings import Free, settings_of, values_of
from kaleido_fast.tasks.settings import EvalConfig
from kaleido_fast.training.checkpoint import newest_checkpoint
from kaleido_fast.training.run.folder import RunFolder

ARMS: tuple[Masking, ...] = ("random", "guided")
COMPARED = ("data.alignment", "kaleido.masking", "train.seed")  # the masking, and the seed by which runs are paired


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """What a comparison reads of a run besides its weights."""

    folder: Path
    config: EvalConfig
    checkpoint: Path
    attention: str  # what model.attention came to
    trained_on: str  # fingerprint of shards and alignment
    samples_per_step: int
    samples: int  # seen in training
    minutes: float  # of training steps, without validation and checkpoints
    evaluation: dict[str, Any]  # eval.json

    @property
    def seed(self) -> int:
        return self.config.train.seed


def read_finished_run(folder: Path, config: EvalConfig) -> FinishedRun:
    """Read a run that is done and was evaluated on the test split; `config` is its settings.

    Raises:
        ValueError: it is not done, or not evaluated since; says what to do.
    """
    files = RunFolder(folder)
    checkpoint, summary = newest_checkpoint(folder), _read(folder / "summary.json")
    if summary is None:
        raise OptionError(f"{folder}: no summary.json yet; go on with ", GO_ON)
    progress = summary["progress"]
    total, seen = progress["total_steps"], progress["position"]
    if total is None or seen < total * progress["batch"]:
        raise OptionError(f"{folder}: not done, {seen:,} samples seen; go on with ", GO_ON)
    evaluation = _read(folder / "eval.json")
    if evaluation is None or evaluation["checkpoint"] != checkpoint.name or evaluation["split"] != "test":
        evaluated = "no eval.json" if evaluation is None else \
            f"eval.json is of {evaluation['checkpoint']} on split '{evaluation['split']}'"
        raise ValueError(f"{folder}: {evaluated}, needed is {checkpoint.name} on 'test'; run `kaleido-fast evaluate {folder}`")
    lines = [json.loads(line) for line in files.metrics_file.read_text(encoding="utf-8").splitlines()]
    return FinishedRun(
        folder, config, checkpoint, summary["picked"]["attention"], progress["shards"], summary["picked"]["samples_per_step"],
        seen, sum(line.get("seconds", 0.0) for line in lines) / 60, evaluation)


def check_arms(arms: Mapping[str, Sequence[FinishedRun]], alignment: str, shards: Path) -> None:
    """Refuse (ValueError) arms that do not differ in masking alone, seed by seed.

    Args:
        arms: by name of `ARMS`.
        alignment: what the guided runs were trained with.
        shards: what all were trained on.
    """
    manifest = Manifest.read(shards)
    manifest.require_photographs(shards, "comparing maskings")
    for arm in ARMS:
        for run in arms[arm]:
            _check_masking(run, arm, alignment)
            _check_shards(run, manifest, shards)
    first = arms[ARMS[0]][0]
    for run in (run for runs in arms.values() for run in runs):
        _check_alike(first, run)
    seeds = {arm: sorted(run.seed for run in runs) for arm, runs in arms.items()}
    if seeds[ARMS[0]] != seeds[ARMS[1]] or len(set(seeds[ARMS[0]])) != len(seeds[ARMS[0]]):
        raise ValueError(f"train.seed: the random runs have {seeds['random']}, the guided ones {seeds['guided']}; give one run "
                         "a seed in each arm, of the same seeds")


def _check_masking(run: FinishedRun, arm: str, alignment: str) -> None:
    trained_with, masking = run.config.data.alignment, run.config.kaleido.masking
    is_guided = masking == "guided" and trained_with != "none"
    if is_guided != (arm == "guided") or (is_guided and trained_with != alignment):
        needed = f"data.alignment={alignment}" if arm == "guided" else "data.alignment=none (or kaleido.masking=random)"
        raise ValueError(f"{run.folder}: has data.alignment={trained_with} and kaleido.masking={masking}; the {arm} arm takes "
                         f"runs with {needed}")


def _check_shards(run: FinishedRun, manifest: Manifest, shards: Path) -> None:
    if run.trained_on != manifest.fingerprint_with(run.config.data.alignment):
        raise ValueError(f"{run.folder}: was not trained on {shards} and its alignment '{run.config.data.alignment}' as they "
                         "are now; give the shards that it was trained on")


def _check_alike(first: FinishedRun, run: FinishedRun) -> None:
    ours, theirs = _settings(run), _settings(first)
    for key in ours:
        if ours[key] != theirs[key]:
            raise ValueError(f"{run.folder}: {key}={ours[key]} but {first.folder} has {theirs[key]}; runs may differ in "
                             "data.alignment, kaleido.masking and train.seed alone")


def _settings(run: FinishedRun) -> dict[str, Any]:
    """What must be one in all runs, by name."""
    values, itr = values_of(run.config) | {"model.attention": run.attention}, run.evaluation["itr"]
    deciding = [setting.key for setting in settings_of(type(run.config)) if setting.mark(Free) is None]
    return {key: values[key] for key in deciding if key not in COMPARED} | {
        "samples a step": run.samples_per_step,
        **{f"eval.json's itr.{key}": itr[key] for key in ("queries", "candidates", "draws")}}


def _read(file: Path) -> dict[str, Any] | None:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        raise ValueError(f"{file}: not JSON; run the verb that wrote it again") from None
