"""Weights of a model on disk: safetensors and the settings that build it, never a pickle."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from kaleido_fast.model.finite import require_finite
from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from kaleido_fast.model.settings import FineTuned, KaleidoSettings, ModelSettings, VocabularySettings
from kaleido_fast.options import Option

WEIGHTS, SETTINGS = "model.safetensors", "model.json"
# In place of an exported folder whose weights are of no use.
OTHER_WEIGHTS = ("export an older checkpoint with ", Option("step"), ", or give other weights")


def save_weights(folder: Path, model: KaleidoBertModel, weights: dict[str, Tensor]) -> None:
    """Write `weights` (the model's state dict, on the CPU) and the settings to a folder without them.

    Raises:
        OSError: they cannot be written whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "model": dataclasses.asdict(model.settings),
        "kaleido": dataclasses.asdict(model.kaleido),
        "vocabulary": dataclasses.asdict(model.vocabulary),
        "image_size": model.image_size,
        **({"finetuned": dataclasses.asdict(model.finetuned)} if model.finetuned else {}),
    }
    (folder / SETTINGS).write_text(json.dumps(settings, indent=1), encoding="utf-8")
    try:
        save_file({key: value.contiguous() for key, value in weights.items()}, folder / WEIGHTS)
    except SafetensorError as error:
        raise OSError(str(error)) from error


def load_weights(folder: Path, attention: str = "", instead: Sequence[str | Option] = OTHER_WEIGHTS) -> KaleidoBertModel:
    """The model that `save_weights` wrote, in evaluation mode, on the CPU.

    Args:
        attention: another implementation than the one trained with: it is how, not what is computed.
        instead: what to do where weights are not finite.
    Raises:
        ValueError: a file is missing or damaged, tensors do not fit the settings or are not finite.
    """
    try:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        settings["model"]["attention"] = attention or settings["model"]["attention"]
        model = _build(settings)
        weights = load_file(folder / WEIGHTS)
    except FileNotFoundError as error:
        raise ValueError(f"{folder}: no {Path(error.filename or WEIGHTS).name} there; expected {WEIGHTS} and {SETTINGS}"
                         ) from None
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder}: damaged weights or settings: {error}") from None
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"{folder / WEIGHTS}: does not fit {SETTINGS}: {' '.join(str(error).split())}") from None
    require_finite(weights, str(folder / WEIGHTS), *instead)
    return model.eval()


def _build(settings: dict[str, Any]) -> KaleidoBertModel:
    def tuples(values: dict[str, Any]) -> dict[str, Any]:
        return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}

    finetuned = settings.get("finetuned")
    return KaleidoBertModel(
        ModelSettings(**tuples(settings["model"])), KaleidoSettings(**tuples(settings["kaleido"])),
        VocabularySettings(**settings["vocabulary"]), settings["image_size"],
        FineTuned(**tuples(finetuned)) if finetuned else None,
    )
