"""Runs of an ablation: each trains and is evaluated in processes of its own; what is done stays done."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from kaleido_fast.options import RESUME
from kaleido_fast.progress_bar import ProgressBar, write_line
from kaleido_fast.training.checkpoint import newest_checkpoint


def run_all(runs: Sequence[tuple[Path, Path]], at_once: int) -> dict[Path, str]:
    """Train and evaluate every run that is not done.

    Args:
        runs: folder (run.out) and config of each.
        at_once: how many at a time; they share the cores.
    Returns:
        By folder the last line of what failed.
    """
    threads = max(1, len(os.sched_getaffinity(0)) // at_once)
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    failed: dict[Path, str] = {}

    def one(run: tuple[Path, Path]) -> None:
        folder, config = run
        why = "" if is_evaluated(folder) else _train_and_evaluate(folder, config, environment)
        if why:
            failed[folder] = why
            write_line(f"{folder}: {why}")
        bar.update()

    with ProgressBar(len(runs), "ablate", "run") as bar, ThreadPoolExecutor(at_once) as pool:
        list(pool.map(one, runs))
    return failed


def is_evaluated(folder: Path) -> bool:
    """Whether the run is done and its newest checkpoint was evaluated."""
    evaluation = _read(folder / "eval.json")
    return _is_done(folder) and evaluation.get("checkpoint") == newest_checkpoint(folder).name


def run_results(folder: Path) -> dict[str, Any]:
    """Of a run that `is_evaluated`: "measures" by name, "samples" that it saw, and "curves".

    A curve holds of a task's validation [minutes of training, loss, accuracy or None] in order of time.
    """
    evaluation, summary = _read(folder / "eval.json"), _read(folder / "summary.json")
    measures = {key: value for key, value in evaluation.items() if key.startswith("sum_r")}
    for side in [key for key in evaluation if key.partition("_")[0] in ("itr", "tir")]:
        measures |= {f"{side} R@{k}": evaluation[side][f"R@{k}"] for k in (1, 10)}
    curves: dict[str, list[list[float | None]]] = {}
    minutes = 0.0
    for line in map(json.loads, (folder / "metrics.jsonl").read_text("utf-8").splitlines()):
        minutes += line.get("seconds", 0.0) / 60
        validation = line.get("validation")
        for task, loss in (validation["losses"] if validation else {}).items():
            curves.setdefault(task, []).append([minutes, loss, validation["accuracy"].get(task)])
    return {"measures": measures, "samples": summary["progress"]["position"], "minutes": minutes, "curves": curves}


def _train_and_evaluate(folder: Path, config: Path, environment: dict[str, str]) -> str:
    """"" or the last line of what failed."""
    verbs = [] if _is_done(folder) else [["pretrain", str(config), *RESUME.flag.split()]]
    with folder.with_suffix(".log").open("a", encoding="utf-8") as log:
        for verb in [*verbs, ["evaluate", str(folder)]]:
            process = subprocess.run([sys.executable, "-m", "kaleido_fast", *verb], env=environment, text=True,
                                     stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
            log.write(process.stdout)
            if process.returncode:
                lines = process.stdout.strip().splitlines()
                return lines[-1] if lines else f"{verb[0]} ended with code {process.returncode}"
    return ""


def _is_done(folder: Path) -> bool:
    return _read(folder / "summary.json").get("ended", {}).get("how") == "done"


def _read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text("utf-8")) if file.is_file() else {}
