"""A fine-tuned model has the shape of the one that it starts from: its settings are taken from there.

So one config serves models of any shape; what a config says of the shape counts where `init.weights=random`.
"""

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml

from kaleido_fast.data.preprocessing import Preprocessing
from kaleido_fast.finetune.settings import FinetuneConfig
from kaleido_fast.model.patch_encoders.build import patch_encoder_kind
from kaleido_fast.model.pretrained import is_exported
from kaleido_fast.model.weights import SETTINGS
from kaleido_fast.options import typed_path
from kaleido_fast.settings import plain
from kaleido_fast.training.run.folder import RunFolder
from kaleido_fast.training.weights_start import FREE, weights_folder

ConfigOf = TypeVar("ConfigOf", bound=FinetuneConfig)


def with_shape(config: ConfigOf, folder: Path, contrasts: bool) -> tuple[ConfigOf, list[str]]:
    """The config with model, kaleido, image size and text length of the model in a folder, and "key=value" of what changed.

    Args:
        folder: a run's, or an exported model's.
        contrasts: whether contrast is trained; otherwise there is none.
    Raises:
        ValueError: there is no model, or its settings cannot be read.
    """
    theirs = _settings(folder)
    model = {key: value for key, value in theirs["model"].items() if key not in FREE}
    if patch_encoder_kind(theirs["model"]["patch_encoder"]).makes_features:
        model |= {key: theirs["model"][key] for key in ("patch_encoder", "patch_features")}
    if not contrasts:
        model["itc_dim"] = 0
    elif theirs["model"].get("itc_dim"):
        model["itc_dim"] = theirs["model"]["itc_dim"]
    data = {"image_size": theirs["image_size"], "max_tokens": _max_tokens(folder) or config.data.max_tokens}
    sections = {"model": model, "kaleido": theirs["kaleido"], "data": data}
    changed = [f"{name}.{key}={plain(value)}" for name, values in sections.items() for key, value in values.items()
               if plain(value) != plain(getattr(getattr(config, name), key))]
    return replace(config, **{name: _replaced(getattr(config, name), values) for name, values in sections.items()}), changed


def _replaced(section: Any, values: dict[str, Any]) -> Any:
    known = {field.name for field in fields(section)}
    return replace(section, **{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
                               if key in known})


def _settings(folder: Path) -> dict[str, Any]:
    file = weights_folder(typed_path(folder)) / SETTINGS
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
        return {key: settings[key] for key in ("model", "kaleido", "image_size")}
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(f"init.weights={folder}: no readable {SETTINGS} there; give a folder that `kaleido-fast export` or "
                         "`import-tf` wrote, a run's, or init.weights=random") from None


def _max_tokens(folder: Path) -> int | None:
    """Of the texts that the model was trained on; None where nothing says so."""
    if is_exported(folder):
        return Preprocessing.read(folder).max_tokens
    file = RunFolder(folder).config_file
    if not file.is_file():
        return None
    return (yaml.safe_load(file.read_text(encoding="utf-8")).get("data") or {}).get("max_tokens")
