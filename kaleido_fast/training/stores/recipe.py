"""What the features of a store depend on besides the bytes of the photographs, and whether a run's settings are the same.

The recipe's names are those of the settings. `data.shards` is the shards' fingerprint: photographs, squares and fills (the
locking). The weights are their SHA-256 over names, shapes and values as they are in memory, from whatever file they came.
"""

import hashlib
from typing import Any

from torch import nn

from kaleido_fast.data.shards.manifest import Manifest
from kaleido_fast.data.store.feature_store import FeatureStore, StoreHeader
from kaleido_fast.data.store.photograph_store import ENCODE
from kaleido_fast.settings import FEATURES, values_deciding
from kaleido_fast.training.settings import StepConfig

VERSION = 1  # of what `cut` and the encoders compute: raised where their numbers change
SHARDS, ENCODER, WEIGHTS = "data.shards", "model.patch_encoder", "model.patch_encoder_weights"
VERSION_KEY = "version"
DIGITS = 16  # of a fingerprint in messages


def store_recipe(config: StepConfig, manifest: Manifest) -> dict[str, Any]:
    """All of a recipe but the weights, as plain JSON values."""
    settings = values_deciding(config, FEATURES)
    settings = {ENCODER: settings.pop(ENCODER)} | settings  # named before the sizes that go with it
    return {VERSION_KEY: VERSION, SHARDS: manifest.fingerprint, **settings}


def with_weights(settings: dict[str, Any], encoder: nn.Module) -> dict[str, Any]:
    """The whole recipe; waits for the device."""
    return settings | {WEIGHTS: weights_fingerprint(encoder)}


def weights_fingerprint(encoder: nn.Module) -> str:
    """SHA-256 of a patch encoder's state dict; of one without weights that of nothing."""
    digest = hashlib.sha256()
    for name, value in sorted(encoder.state_dict().items()):
        value = value.detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)};".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def check_recipe(config: StepConfig, store: FeatureStore, expected: dict[str, Any]) -> None:
    """Refuse (ValueError) a store that was made otherwise than `expected`; names the first difference."""
    stored = store.header.recipe
    for key, value in expected.items():
        if stored.get(key) != value:
            raise ValueError(f"{store.path}: {_difference(config, key, stored.get(key), value)}, give another data.store, or "
                             f"remove this one and {ENCODE}")
    _check_dtype(config, store.path, store.header)


def _check_dtype(config: StepConfig, path: Any, header: StoreHeader) -> None:
    if header.dtype != config.data.store_dtype:
        raise ValueError(f"{path}: made with data.store_dtype={header.dtype}, found data.store_dtype="
                         f"{config.data.store_dtype}; set data.store_dtype={header.dtype}, give another data.store, or "
                         f"remove this one and {ENCODE}")


def _difference(config: StepConfig, key: str, stored: Any, expected: Any) -> str:
    """What differs, and what to set where a setting can mend it."""
    if key == SHARDS:
        return (f"made of other photographs than data.shards={config.data.shards} (fingerprint {str(stored)[:DIGITS]}…, "
                f"expected {expected[:DIGITS]}…); give the shards it was made of")
    if key == WEIGHTS:
        return (f"made with other weights of {config.model.patch_encoder} (SHA-256 {str(stored)[:DIGITS]}…, found "
                f"{expected[:DIGITS]}… in {WEIGHTS}={config.model.patch_encoder_weights or 'its package'}); set {WEIGHTS} "
                "to the file it was made with")
    if key == VERSION_KEY:
        return f"made by another version of kaleido_fast (features {stored}, expected {expected}); use that version"
    return f"made with {key}={stored}, found {key}={expected}; set {key}={stored}"
