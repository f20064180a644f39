"""Checkpoints of a run: written beside, hashed, then renamed, so that nothing half-written is ever read.

    checkpoints/latest                    name of the newest whole one
    checkpoints/step-00000200/            DeepSpeed's training state
                              weights/    model.safetensors and model.json, what evaluation reads; a pre-trained patch
                                          encoder is here alone
                              mined_negatives.npy  where negatives are mined (SPEC 10)
                              chosen.json the step whose validation was the best so far, where one is chosen
                              files.json  SHA-256 of each file
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file
from torch import Tensor

from kaleido_fast.files import cannot_write, replace_text
from kaleido_fast.model.finite import require_finite
from kaleido_fast.model.weights import WEIGHTS, save_weights
from kaleido_fast.options import GO_ON, RESUME, Option, OptionError
from kaleido_fast.training.engine import Engine, convert_checkpoint, saved_state, saved_workers
from kaleido_fast.training.frozen_state import restore_encoder
from kaleido_fast.training.lost import RunLost
from kaleido_fast.training.mining.mined_negatives import NEGATIVES
from kaleido_fast.training.progress import Progress
from kaleido_fast.training.run.folder import RunFolder
from kaleido_fast.training.settings import RunSettings
from kaleido_fast.training.workers.failure import is_lost
from kaleido_fast.training.workers.group import Workers

HASHES, LATEST, CHOSEN = "files.json", "latest", "chosen.json"
OLDER = ("write an older checkpoint's name into checkpoints/latest",)  # where the newest is of no use
WRITING, CONVERTED = ".writing-", ".converted"  # what a run that was killed may leave behind


def save_checkpoint(
    folder: Path, engine: Engine, workers: Workers, state: dict[str, Any], keep: int, with_weights: bool = True,
    negatives: np.ndarray | None = None,
) -> Path:
    """Write the training state and the weights of step state["step"]; keep the newest `keep`, and of each of them the one
    that state["chosen"] names. All workers call it.

    Args:
        with_weights: whether evaluation reads them; a captioner's training has its state alone.
        negatives: (products, C) int32 mined negatives, the same on all workers.
    Raises:
        ValueError: the files cannot be written (on the worker that cannot); nothing of it is left, older ones stay.
        RunLost: weights are not finite.
    """
    name = f"step-{state['step']:08d}"
    beside, final = folder / f"{WRITING}{name}", folder / name
    weights = engine.weights(engine.module.model if with_weights else None)
    try:
        require_finite(weights, str(final), "not written, the training is lost; a resumed run meets the same steps again: "
                       "start anew with a lower learning rate")
    except ValueError as error:
        raise RunLost(str(error)) from None
    with workers.together():
        if workers.is_first:
            shutil.rmtree(beside, ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)
    try:
        engine.save(folder, beside.name, state)
        with workers.together():
            if workers.is_first:
                for script in folder.glob("zero_to_*.py"):  # DeepSpeed's converters, which unpickle whatever they find
                    script.unlink()
                if with_weights:
                    save_weights(beside / "weights", engine.module.model, weights)
                if negatives is not None:
                    np.save(beside / NEGATIVES, negatives)
                if state.get("chosen"):
                    (beside / CHOSEN).write_text(json.dumps(state["chosen"]), encoding="utf-8")
                _write_hashes(beside)
    except (ValueError, OSError, RuntimeError) as error:
        raise _unwritten(final, beside, error, *(("with ", RESUME) if with_weights else ("by the same command",))) from error
    with workers.together():
        if workers.is_first:
            shutil.rmtree(final, ignore_errors=True)
            beside.rename(final)
            replace_text(folder / LATEST, name)
            _prune(final, keep)
    return final


def load_checkpoint(path: Path, engine: Engine, workers: Workers, converted: bool = False, with_weights: bool = True) -> None:
    """Restore the engine from a checkpoint; all workers call it.

    Args:
        with_weights: as it was saved.
        converted: the state is cut for another number of workers (`is_for_others`) and the engine knows it.
    Raises:
        SharedError: the files are not there on every worker.
    """
    with workers.together():
        if not (path / HASHES).is_file():
            raise ValueError(f"{path}: not there; run.out must lie on storage that all workers see")
        if with_weights:
            restore_encoder(engine.module.model, path / "weights" / WEIGHTS)
    if not converted:
        engine.load(path.parent, path.name)
        return
    folder = path.parent / CONVERTED
    with workers.together():
        if workers.is_first:
            convert_checkpoint(path, folder / path.name)
    engine.load(folder, path.name)
    weights = engine.weights(engine.module.model) if with_weights else {}
    with workers.together():
        if workers.is_first:
            shutil.rmtree(folder)
            if with_weights:
                _compare(path, weights, workers.count)


def saved_progress(path: Path, run: RunSettings) -> Progress:
    """Where the training stood whose checkpoint `path` is; no tensor is read."""
    return Progress.restore(saved_state(path, run))


def is_for_others(path: Path, num_workers: int) -> bool:
    """Whether a checkpoint's state is cut for another number of workers and must be converted."""
    return saved_workers(path) not in (None, num_workers)


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint, its files checked against their hashes; None where there is none yet.

    Raises:
        ValueError: a file is missing or was changed.
    """
    try:
        path = folder / (folder / LATEST).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    verify_checkpoint(path)
    return path


def newest_checkpoint(folder: Path) -> Path:
    """The same of a run's folder, which must have one."""
    checkpoint = latest_checkpoint(RunFolder(folder).checkpoints)
    if checkpoint is None:
        raise OptionError(f"{folder}: no checkpoint yet; go on with ", GO_ON)
    return checkpoint


def chosen_checkpoint(folder: Path) -> Path:
    """Of a run's folder: the checkpoint whose validation was the best, where one is chosen; else the newest.

    Raises:
        ValueError: there is none, or a file of it is missing or was changed.
    """
    newest = newest_checkpoint(folder)
    checkpoint = _chosen_of(newest)
    if checkpoint != newest:
        verify_checkpoint(checkpoint)
    return checkpoint


def _chosen_of(checkpoint: Path) -> Path:
    """The checkpoint that was chosen when `checkpoint` was written; itself where none is."""
    file = checkpoint / CHOSEN
    if not file.is_file():
        return checkpoint
    try:
        return checkpoint.parent / f"step-{int(json.loads(file.read_text(encoding='utf-8'))['step']):08d}"
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{file}: not readable; resume from an older checkpoint by editing 'latest'") from None


def require_finite_weights(checkpoint: Path) -> None:
    """Refuse (ValueError) a checkpoint where a weight is not finite."""
    file = checkpoint / "weights" / WEIGHTS
    require_finite(load_file(file), str(file), *OLDER)


def clean_leftovers(folder: Path) -> None:
    """Remove what was half-written when a run was killed."""
    for path in [*folder.glob(f"{WRITING}*"), *folder.glob(CONVERTED)]:
        shutil.rmtree(path, ignore_errors=True)


def verify_checkpoint(path: Path) -> None:
    """Compare every file of a checkpoint with the SHA-256 stored beside it (ValueError names the first that differs)."""
    try:
        hashes = json.loads((path / HASHES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ValueError(f"{path}: no readable {HASHES}; not a whole checkpoint") from None
    for name, expected in hashes.items():
        file = path / name
        if not file.is_file():
            raise ValueError(f"{file}: missing; the checkpoint is damaged, resume from an older one by editing 'latest'")
        if _sha256(file) != expected:
            raise ValueError(f"{file}: changed since it was written; resume from an older checkpoint by editing 'latest'")


def _unwritten(final: Path, beside: Path, error: Exception, *how: str | Option) -> Exception:
    """What to raise where a checkpoint could not be written; nothing of it is left."""
    if is_lost(error):
        return error
    shutil.rmtree(beside, ignore_errors=True)
    return cannot_write(final, error, "make room, then go on from the checkpoint before it ", *how)


def _compare(path: Path, restored: dict[str, Tensor], num_workers: int) -> None:
    """The converted weights must be those that were saved."""
    for name, saved in load_file(path / "weights" / WEIGHTS).items():
        if not saved.equal(restored[name]):
            raise ValueError(f"{path}: '{name}' changed in the conversion to {num_workers} workers; resume it on "
                             f"{saved_workers(path)}")


def _write_hashes(folder: Path) -> None:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    hashes = {str(file.relative_to(folder)): _sha256(file) for file in files}
    (folder / HASHES).write_text(json.dumps(hashes, indent=1), encoding="utf-8")


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _prune(newest: Path, keep: int) -> None:
    """Keep `newest` and the keep - 1 before it, and what these had chosen; later ones are of a trajectory that was left."""
    others = sorted(path for path in newest.parent.glob("step-*") if path.is_dir() and path != newest)
    before = [path for path in others if path.name < newest.name]
    kept = [newest, *before[max(0, len(before) - keep + 1) :]]
    kept += [_chosen_of(path) for path in kept]
    for path in others:
        if path not in kept:
            shutil.rmtree(path)
