"""A run's model as its users take it (model/pretrained.py): written as one folder, or read from the run's own folder."""

import shutil
from pathlib import Path
from typing import NamedTuple

from kaleido_fast.data.preprocessing import Preprocessing
from kaleido_fast.data.settings import DataSettings
from kaleido_fast.data.shards.manifest import VOCABULARY, Manifest
from kaleido_fast.files import require_free, written_beside
from kaleido_fast.model.pretrained import Pretrained, load_pretrained
from kaleido_fast.options import Option
from kaleido_fast.training.checkpoint import chosen_checkpoint, verify_checkpoint
from kaleido_fast.training.run.folder import RunFolder

OLDER_STEP = ("take an older checkpoint with ", Option("step"))  # where the weights are not finite


class _Parts(NamedTuple):
    weights: Path  # folder
    vocabulary: Path  # file
    preprocessing: Preprocessing


def export_run(run: Path, data: DataSettings, out: Path, step: int | None = None) -> Path:
    """Write a run's chosen checkpoint (the newest where none is chosen), or that of `step`, as a folder for
    `load_exported`; beside, then renamed.

    Args:
        data: the run's, with `shards` where they lie now.
        out: must not exist or be empty.
    Returns:
        The checkpoint's folder.
    Raises:
        ValueError: no such checkpoint, shards that are gone or others, or `out` is not empty.
    """
    require_free(out)
    parts = _parts(run, data, step)
    load_pretrained(*parts, instead=OLDER_STEP)  # what cannot be read is not handed on
    with written_beside(out, "export") as beside:
        shutil.copytree(parts.weights, beside, dirs_exist_ok=True)
        shutil.copyfile(parts.vocabulary, beside / VOCABULARY)
        parts.preprocessing.write(beside)
    return parts.weights.parent


def load_run(run: Path, data: DataSettings, step: int | None = None, attention: str = "") -> Pretrained:
    """The model of a run's chosen checkpoint, or that of `step`; raises ValueError as `export_run` does.

    Args:
        data: the run's.
        attention: another implementation than the one trained with.
    """
    return load_pretrained(*_parts(run, data, step), attention, OLDER_STEP)


def _parts(run: Path, data: DataSettings, step: int | None) -> _Parts:
    checkpoint = _checkpoint(run, step)
    shards = Path(data.shards)
    return _Parts(checkpoint / "weights", shards / VOCABULARY,
                  Preprocessing(data.max_tokens, Manifest.read(shards).max_side))


def _checkpoint(run: Path, step: int | None) -> Path:
    if step is None:
        return chosen_checkpoint(run)
    folder = RunFolder(run).checkpoints
    checkpoint = folder / f"step-{step:08d}"
    if not checkpoint.is_dir():
        steps = sorted(int(path.name.removeprefix("step-")) for path in folder.glob("step-*"))
        raise ValueError(f"{run}: no checkpoint of step {step}, it has {', '.join(map(str, steps)) or 'none'}")
    verify_checkpoint(checkpoint)
    return checkpoint
