"""init.weights: a run starts from a model's folder, as `kaleido-fast export` and `import-tf` write it, or from another run."""

from dataclasses import fields
from pathlib import Path

import torch
from torch import Tensor

from kaleido_fast.model.kaleido_bert import CLASSIFIER, CONTRAST_HEADS, PATCH_ENCODER, KaleidoBertModel
from kaleido_fast.model.settings import UNKNOWN, ModelSettings
from kaleido_fast.model.weights import load_weights
from kaleido_fast.options import OptionError, message_parts
from kaleido_fast.training.checkpoint import chosen_checkpoint
from kaleido_fast.training.run.folder import RunFolder

# How a model is trained and computed, not what it is; the patch encoder and contrast are compared apart.
FREE = ("dropout", "attention_dropout", "initializer_range", "attention", "compile", "features", "patch_encoder",
        "patch_encoder_weights", "patch_features", "itc_dim")


def weights_folder(folder: Path) -> Path:
    """Where the weights lie that a folder stands for: itself, or of a run those of its chosen checkpoint.

    Raises:
        ValueError: a run without a whole checkpoint.
    """
    return chosen_checkpoint(folder) / "weights" if RunFolder(folder).config_file.is_file() else folder


def start_from_weights(model: KaleidoBertModel, folder: Path, *, shards: str) -> str:
    """Fill `model` from a folder, once all of it is known to fit; the optimizer begins anew.

    A model whose features come ready ("none") and one with a patch encoder may stand for each other where the features
    are equally wide: the features must then be the encoder's, which nobody can check here. Contrast that one of both models
    has starts anew, or is left out; a classifier of other labels does, too.

    Args:
        shards: named in messages.
    Returns:
        One line for the log and the summary.
    Raises:
        ValueError: the folder is missing or damaged, or model, tasks or vocabulary differ.
    """
    try:
        theirs = load_weights(weights_folder(folder))
    except ValueError as error:
        raise OptionError("init.weights: ", *message_parts(error)) from None
    _check_settings(model, theirs, folder)
    _check_vocabulary(model, theirs, folder, shards)
    apart = [] if not _is_absent(model) and not _is_absent(theirs) else [PATCH_ENCODER]
    apart += [CONTRAST_HEADS] if (model.contrast is None) != (theirs.contrast is None) else []
    apart += [CLASSIFIER] if _labels(model) != _labels(theirs) else []
    ours, given = ({name: value for name, value in one.state_dict().items() if not name.startswith(tuple(apart))}
                   for one in (model, theirs))
    other = [name for name in ours.keys() | given.keys() if _shape(ours, name) != _shape(given, name)]
    if other:
        raise ValueError(f"init.weights: {folder}: '{min(other)}' is not in both models, or of another shape; set "
                         "kaleido.tasks and kaleido.patch_size as in its model.json")
    model.load_state_dict(given, strict=not apart)
    line = f"{folder}: all weights{' but the patch encoder' if PATCH_ENCODER in apart else ''}, a new optimizer"
    if CONTRAST_HEADS in apart:
        line += ("; no contrast (itc) there, its heads and temperature start anew" if theirs.contrast is None else
                 "; its contrast (itc) is left out, model.itc_dim=0")
    if CLASSIFIER in apart:
        line += "; its classifier starts anew" if _labels(model) else "; the classifier there is left out"
    return line


def _check_settings(model: KaleidoBertModel, theirs: KaleidoBertModel, folder: Path) -> None:
    keys = [field.name for field in fields(ModelSettings) if field.name not in FREE]
    wanted = {f"model.{key}": (getattr(model.settings, key), getattr(theirs.settings, key)) for key in keys}
    wanted["kaleido.grids"] = (list(model.kaleido.grids), list(theirs.kaleido.grids))
    if model.contrast is not None and theirs.contrast is not None:
        wanted["model.itc_dim"] = (model.settings.itc_dim, theirs.settings.itc_dim)
    if not _is_absent(model) and not _is_absent(theirs):
        wanted["model.patch_encoder"] = (model.settings.patch_encoder, theirs.settings.patch_encoder)
    other = {key: values for key, values in wanted.items() if values[0] != values[1]}
    if other:
        differing = ", ".join(f"{key}={ours}" for key, (ours, _) in other.items())
        raise ValueError(f"init.weights: {folder} is of another shape than {differing}; set "
                         + " ".join(f"{key}={given}" for key, (_, given) in other.items()))
    ours, given = model.patch_encoder.num_features, theirs.patch_encoder.num_features
    if ours != given:
        raise ValueError(f"init.weights: {folder} reads features of width {given}, the run has {ours}; set "
                         "model.patch_encoder or model.patch_features")


def _check_vocabulary(model: KaleidoBertModel, theirs: KaleidoBertModel, folder: Path, shards: str) -> None:
    """One that came without a vocabulary can be held against its size alone."""
    ours, given = model.vocabulary, theirs.vocabulary
    if ours.size != given.size or given.fingerprint not in (UNKNOWN, ours.fingerprint):
        advice = "prepare shards with its vocab.txt"
        if given.fingerprint == UNKNOWN:
            advice = "import it and prepare the shards with the same vocab.txt"
        raise ValueError(f"init.weights: {folder} has another vocabulary of {given.size:,} words than data.shards="
                         f"{shards}, {ours.size:,}; {advice}")


def _labels(model: KaleidoBertModel) -> tuple[str, ...]:
    return model.finetuned.labels if model.finetuned else ()


def _shape(state: dict[str, Tensor], name: str) -> torch.Size | None:
    return state[name].shape if name in state else None


def _is_absent(model: KaleidoBertModel) -> bool:
    return not model.patch_encoder.makes_features
