"""A trained model as its users take it: one folder with weights, settings, vocabulary and preprocessing.

    model.safetensors, model.json    as a checkpoint's weights/ holds them
    vocab.txt                        of the shards it was trained on
    preprocessing.json               what photographs and texts go through
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from kaleido_fast.config import load_config
from kaleido_fast.data.preprocessing import PREPROCESSING, Preprocessing
from kaleido_fast.data.shards.manifest import VOCABULARY, Manifest
from kaleido_fast.data.shards.tokenizer import Tokenizer
from kaleido_fast.files import require_free, written_beside
from kaleido_fast.model.kaleido_bert import KaleidoBert
from kaleido_fast.model.settings import UNKNOWN
from kaleido_fast.model.weights import load_weights
from kaleido_fast.training.checkpoint import latest_checkpoint, verify_checkpoint
from kaleido_fast.training.run_folder import RunFolder


class Pretrained(NamedTuple):
    """A trained model and what its inputs go through."""

    model: KaleidoBert  # in evaluation mode, on the CPU
    tokenizer: Tokenizer | None  # None where an imported model came without its vocabulary
    preprocessing: Preprocessing


class _Parts(NamedTuple):
    weights: Path  # folder
    vocabulary: Path  # file
    preprocessing: Preprocessing

    def load(self, attention: str) -> Pretrained:
        model = load_weights(self.weights, attention)
        if model.vocabulary.fingerprint == UNKNOWN and not self.vocabulary.exists():
            return Pretrained(model, None, self.preprocessing)
        tokenizer = Tokenizer.from_vocab(self.vocabulary)
        if tokenizer.vocabulary().fingerprint != model.vocabulary.fingerprint:
            raise ValueError(f"{self.vocabulary}: not the vocabulary that {self.weights} was trained with; give the "
                             "vocab.txt of the run's shards")
        return Pretrained(model, tokenizer, self.preprocessing)


def export_run(run: Path, out: Path, step: int | None = None, overrides: Sequence[str] = ()) -> Path:
    """Write a run's newest checkpoint, or that of `step`, as a folder for `load_pretrained`; beside, then renamed.

    Args:
        out: must not exist or be empty.
        overrides: `key=value` over the run's settings, such as data.shards=DIR where the shards have moved.
    Returns:
        The checkpoint's folder.
    Raises:
        ValueError: not a run, no such checkpoint, shards that are gone or others, or `out` is not empty.
    """
    require_free(out)
    parts = _of_run(run, step, overrides)
    parts.load(attention="")  # what cannot be read is not handed on
    with written_beside(out) as beside:
        shutil.copytree(parts.weights, beside, dirs_exist_ok=True)
        shutil.copyfile(parts.vocabulary, beside / VOCABULARY)
        parts.preprocessing.write(beside)
    return parts.weights.parent


def load_pretrained(folder: Path, step: int | None = None, attention: str = "") -> Pretrained:
    """The model in a folder that `export_run` or `import_tf` wrote, or a run's newest one or that of `step`.

    Args:
        attention: another implementation than the one trained with.
    Raises:
        ValueError: neither of the two, or a part of it is missing, damaged or of another model.
    """
    if (folder / PREPROCESSING).is_file():
        if step is not None:
            raise ValueError(f"{folder}: an exported model has one step alone; give step={step} with a run's folder")
        return _Parts(folder, folder / VOCABULARY, Preprocessing.read(folder)).load(attention)
    if RunFolder(folder).config_file.is_file():
        return _of_run(folder, step).load(attention)
    what = f"no {PREPROCESSING} and no config.yaml there" if folder.is_dir() else "no such folder"
    raise ValueError(f"{folder}: {what}; give a folder that `kaleido-fast export RUN --out DIR` wrote, or a run's")


def _of_run(run: Path, step: int | None, overrides: Sequence[str] = ()) -> _Parts:
    folder = RunFolder(run)
    if not folder.config_file.is_file():
        raise ValueError(f"{run}: no config.yaml, so not a run; give a folder that `kaleido-fast pretrain` wrote")
    data = load_config(folder.config_file, overrides).data
    checkpoint = _checkpoint(folder, step)
    shards = Path(data.shards)
    if not shards.is_dir():
        raise ValueError(f"{run}: its shards' vocabulary is needed, but data.shards={shards} is not there; run "
                         f"`kaleido-fast export {run} data.shards=DIR --out DIR` with the folder where they lie now")
    preprocessing = Preprocessing(data.max_tokens, Manifest.read(shards).max_side)
    return _Parts(checkpoint / "weights", shards / VOCABULARY, preprocessing)


def _checkpoint(folder: RunFolder, step: int | None) -> Path:
    if step is None:
        checkpoint = latest_checkpoint(folder.checkpoints)
        if checkpoint is None:
            raise ValueError(f"{folder.path}: no checkpoint yet; go on with `kaleido-fast pretrain ... --resume auto`")
        return checkpoint
    checkpoint = folder.checkpoints / f"step-{step:08d}"
    if not checkpoint.is_dir():
        steps = sorted(int(path.name.removeprefix("step-")) for path in folder.checkpoints.glob("step-*"))
        raise ValueError(f"{folder.path}: no checkpoint of step {step}, it has {', '.join(map(str, steps)) or 'none'}")
    verify_checkpoint(checkpoint)
    return checkpoint
