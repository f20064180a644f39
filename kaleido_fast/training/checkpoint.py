"""Checkpoints of a run: written beside, hashed, then renamed, so that nothing half-written is ever read.

    checkpoints/latest                    name of the newest whole one
    checkpoints/step-00000200/            DeepSpeed's training state
                              weights/    model.safetensors and model.json, what evaluation reads
                              files.json  SHA-256 of each file
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from kaleido_fast.data.beside import cannot_write
from kaleido_fast.model.weights import save_weights
from kaleido_fast.training.engine import Engine
from kaleido_fast.training.run_folder import replace_text
from kaleido_fast.training.workers import Workers

HASHES, LATEST = "files.json", "latest"


def save_checkpoint(
    folder: Path, engine: Engine, workers: Workers, state: dict[str, Any], keep: int
) -> Path:
    """Write the training state and the weights of step state["step"]; keep the newest `keep`. All workers call it.

    Raises:
        ValueError: it cannot be written (disk full); nothing of it is left, older checkpoints stay.
    """
    name = f"step-{state['step']:08d}"
    beside, final = folder / f".writing-{name}", folder / name
    try:
        _save(folder, beside, final, engine, workers, state)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise cannot_write(final, error, "make room, then go on from the checkpoint before it with --resume auto") from error
    if workers.is_first:
        _prune(folder, keep)
    workers.wait()
    return final


def _save(
    folder: Path, beside: Path, final: Path, engine: Engine, workers: Workers, state: dict[str, Any]
) -> None:
    if workers.is_first:
        shutil.rmtree(beside, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
    workers.wait()
    engine.save(folder, beside.name, state)
    weights = engine.weights()
    if workers.is_first:
        prefix = "model."  # the trained module is the step around the model
        model = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        save_weights(beside / "weights", engine.module.model, model)
    workers.wait()
    if workers.is_first:
        _write_hashes(beside)
        shutil.rmtree(final, ignore_errors=True)
        beside.rename(final)
        replace_text(folder / LATEST, final.name)


def has_checkpoint(folder: Path) -> bool:
    """Whether a whole checkpoint was ever written to this folder."""
    return (folder / LATEST).is_file()


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


def _write_hashes(folder: Path) -> None:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    hashes = {str(file.relative_to(folder)): _sha256(file) for file in files}
    (folder / HASHES).write_text(json.dumps(hashes, indent=1), encoding="utf-8")


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _prune(folder: Path, keep: int) -> None:
    whole = sorted(path for path in folder.glob("step-*") if path.is_dir())
    for path in whole[:-keep]:
        shutil.rmtree(path)
