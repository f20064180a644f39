"""The patch encoders there are, and from the settings to one of them.

A further encoder is a file of its own and a row here: its class says its name, width, least patch, whether it is frozen
(FrozenEncoder), whether it has weights and where they come from (PretrainedEncoder), and the stride of its feature map.
"""

from kaleido_fast.model.patch_encoders.absent import AbsentEncoder
from kaleido_fast.model.patch_encoders.dct import DctEncoder
from kaleido_fast.model.patch_encoders.efficientnet_lite0 import EfficientnetLite0Encoder
from kaleido_fast.model.patch_encoders.interface import FrozenEncoder, PatchEncoder
from kaleido_fast.model.patch_encoders.linear import LinearEncoder
from kaleido_fast.model.patch_encoders.pretrained import PretrainedEncoder
from kaleido_fast.model.patch_encoders.resnet50 import Resnet50Encoder
from kaleido_fast.model.settings import KaleidoSettings, ModelSettings

# By `model.patch_encoder`.
PATCH_ENCODERS: dict[str, type[PatchEncoder]] = {
    encoder.name: encoder
    for encoder in (AbsentEncoder, DctEncoder, EfficientnetLite0Encoder, LinearEncoder, Resnet50Encoder)
}


def patch_encoder_kind(name: str) -> type[PatchEncoder]:
    """The row of `name`. Raises ValueError, with the names there are, where there is none."""
    if name not in PATCH_ENCODERS:
        *others, last = (f"'{known}'" for known in sorted(PATCH_ENCODERS))
        raise ValueError(f"model.patch_encoder: expected {', '.join(others)} or {last}, found {name!r}")
    return PATCH_ENCODERS[name]


def storable_encoders() -> list[str]:
    """Those whose features a store can hold: they make some, and what they make of a photograph stays the same."""
    return [name for name, kind in PATCH_ENCODERS.items() if issubclass(kind, FrozenEncoder) and kind.makes_features]


def build_patch_encoder(settings: ModelSettings, kaleido: KaleidoSettings) -> PatchEncoder:
    """The encoder that `model.patch_encoder` names; a pre-trained one without its weights (`give_weights`).

    Raises:
        ValueError: there is no such encoder, or kaleido.patch_size is too small for it.
    """
    return patch_encoder_kind(settings.patch_encoder).from_settings(settings, kaleido)


def check_patch_encoder(settings: ModelSettings, kaleido: KaleidoSettings) -> None:
    """Refuse settings that do not go with the encoder (ValueError, naming the keys)."""
    encoder = patch_encoder_kind(settings.patch_encoder)
    if settings.patch_features and not encoder.takes_width:
        raise ValueError(f"model.patch_features={settings.patch_features} is for the linear encoder; {encoder.name} has "
                         f"{encoder.num_features} features; take it out")
    if settings.patch_encoder_weights and not issubclass(encoder, PretrainedEncoder):
        raise ValueError(f"model.patch_encoder_weights={settings.patch_encoder_weights}: the {encoder.name} encoder "
                         "reads no weights; take it out")
    encoder.check(settings, kaleido)
    if settings.features == "computed" and not encoder.makes_features:
        raise ValueError(f"model.patch_encoder={encoder.name} computes no features, found model.features=computed; set "
                         "model.features=stored")
    if settings.features == "stored" and not issubclass(encoder, FrozenEncoder):
        raise ValueError(f"model.patch_encoder={encoder.name} is trained with the model, so its features cannot be stored; "
                         "set model.features=computed")
