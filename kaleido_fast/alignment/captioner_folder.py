"""A captioner on disk: captioner.safetensors; captioner.json, which says what builds it and what it was trained on; and
speed.json, how fast that was, apart from the others so that two equal captioners have one fingerprint."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from kaleido_fast.alignment.captioner import Captioner
from kaleido_fast.alignment.feature_map import FeatureMap, FrozenMap, SmallMap
from kaleido_fast.alignment.settings import AlignConfig, AlignSettings
from kaleido_fast.data.shards.manifest import Manifest, file_digest, fingerprint
from kaleido_fast.files import written_beside
from kaleido_fast.model.patch_encoder_weights import give_weights
from kaleido_fast.settings import CAPTIONER, same_place, values_deciding

WEIGHTS, SETTINGS, SPEED = "captioner.safetensors", "captioner.json", "speed.json"
CAPTIONER_FORMAT = 1
ENCODER_WEIGHTS = "model.patch_encoder_weights"


@dataclass(frozen=True, slots=True)
class CaptionerShape:
    """What builds a captioner."""

    align: AlignSettings
    network: str  # "small", or the patch encoder's name
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_words: int
    vocabulary: str  # fingerprint

    @classmethod
    def of(cls, config: AlignConfig, manifest: Manifest) -> "CaptionerShape":
        """The captioner that a config asks for."""
        network = "small" if config.align.network == "small" else config.model.patch_encoder
        return cls(config.align, network, config.data.image_size, config.kaleido.mean, config.kaleido.std,
                   manifest.vocabulary.size, manifest.vocabulary.fingerprint)

    def build(self) -> Captioner:
        """Random weights from torch's generator; those of a frozen network are not a number until given."""
        return Captioner(self._network(), self.align, self.num_words)

    def _network(self) -> FeatureMap:
        if self.network == "small":
            return SmallMap(self.image_size, self.align.channels, self.mean, self.std)
        return FrozenMap(self.network, self.image_size, self.mean, self.std)


def give_network_weights(captioner: Captioner, given: str) -> None:
    """Give a frozen network the weights that `model.patch_encoder_weights` says; the small one has its own.

    Raises:
        ValueError: the file or package is not there, cannot be read, or holds other tensors.
    """
    if isinstance(captioner.network, FrozenMap):
        give_weights(captioner.network.encoder, given)


def captioner_recipe(config: AlignConfig, manifest: Manifest) -> dict[str, Any]:
    """All that decides what a trained captioner becomes, as plain values by the keys a user gives."""
    settings = values_deciding(config, CAPTIONER) | {"the shards' fingerprint": manifest.fingerprint}
    if config.align.network == "patch_encoder":
        settings |= {"model.patch_encoder": config.model.patch_encoder,
                     ENCODER_WEIGHTS: config.model.patch_encoder_weights}
    return settings


def save_captioner(
    folder: Path, shape: CaptionerShape, weights: dict[str, Tensor], recipe: dict[str, Any], report: dict[str, Any],
    samples_per_s: float,
) -> None:
    """Write a captioner beside its place and rename it.

    Args:
        report: what its training came to.
        samples_per_s: of its training.
    Raises:
        ValueError: it cannot be written.
    """
    values = dataclasses.asdict(shape) | {"format": CAPTIONER_FORMAT, "recipe": recipe, "report": report}
    with written_beside(folder, "align") as beside:
        try:
            save_file({key: value.contiguous() for key, value in weights.items()}, beside / WEIGHTS)
        except SafetensorError as error:
            raise OSError(str(error)) from error
        (beside / SETTINGS).write_text(json.dumps(values, indent=1), encoding="utf-8")
        (beside / SPEED).write_text(json.dumps({"samples_per_s": samples_per_s}), encoding="utf-8")


def read_training_speed(folder: Path) -> float | None:
    """Samples/s of the training of the captioner in `folder`; None where that is not known."""
    try:
        return float(json.loads((folder / SPEED).read_text(encoding="utf-8"))["samples_per_s"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def first_difference(recorded: dict[str, Any], wanted: dict[str, Any]) -> str:
    """The first key by which two recipes of a captioner differ, in words; empty where none does."""
    for key in sorted(wanted.keys() | recorded.keys()):
        earlier, now = recorded.get(key), wanted.get(key)
        if key == ENCODER_WEIGHTS and isinstance(earlier, str) and isinstance(now, str) and same_place(earlier, now):
            continue  # kept as it was typed
        if earlier != now:
            return f"trained with {key}={earlier}, not {now}"
    return ""


def read_recipe(folder: Path) -> dict[str, Any]:
    """What the captioner in `folder` was trained by. Raises ValueError where there is none."""
    return _read(folder)["recipe"]


def read_report(folder: Path) -> dict[str, Any]:
    """What the training of the captioner in `folder` came to. Raises ValueError where there is none."""
    return _read(folder)["report"]


def load_captioner(folder: Path) -> tuple[Captioner, CaptionerShape, str]:
    """The captioner that `save_captioner` wrote, in evaluation mode, on the CPU; its shape; its fingerprint.

    Raises:
        ValueError: a file is missing or damaged, or tensors do not fit the settings.
    """
    values = _read(folder)
    try:
        shape = CaptionerShape(
            AlignSettings(**_tuples(values["align"])), values["network"], values["image_size"], tuple(values["mean"]),
            tuple(values["std"]), values["num_words"], values["vocabulary"])
        captioner = shape.build()
        captioner.load_state_dict(load_file(folder / WEIGHTS))
        digest = fingerprint(file_digest(folder / WEIGHTS), file_digest(folder / SETTINGS))
    except (SafetensorError, RuntimeError, OSError, KeyError, TypeError) as error:
        raise ValueError(f"{folder}: damaged captioner: {' '.join(str(error).split())}; train it again") from None
    return captioner.eval(), shape, digest


def require_fitting(folder: Path, shape: CaptionerShape, config: AlignConfig, manifest: Manifest) -> None:
    """Refuse (ValueError) a captioner of another vocabulary or another size of pictures."""
    expected = manifest.vocabulary.fingerprint
    if shape.vocabulary != expected:
        raise ValueError(f"align.captioner={folder}: made for a vocabulary {shape.vocabulary[:16]}…, the shards have "
                         f"{expected[:16]}…; train one on them (leave align.captioner out), or prepare with its vocab.txt")
    if shape.image_size != config.data.image_size:
        raise ValueError(f"align.captioner={folder}: made for data.image_size={shape.image_size}, found "
                         f"{config.data.image_size}; set that, or train another")


def _read(folder: Path) -> dict[str, Any]:
    try:
        values = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{folder}: no {SETTINGS} there; expected a captioner that 'kaleido-fast align' trained") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder / SETTINGS}: not readable: {error}; train the captioner again") from None
    if not isinstance(values, dict) or values.get("format") != CAPTIONER_FORMAT or \
            not all(isinstance(values.get(key), dict) for key in ("recipe", "report")):
        raise ValueError(f"{folder / SETTINGS}: not a captioner of format {CAPTIONER_FORMAT}; train it again")
    return values


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
