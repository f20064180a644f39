"""From the settings to a patch encoder."""

from kaleido_fast.model.patch_encoders.absent import AbsentEncoder
from kaleido_fast.model.patch_encoders.convolutional import ConvolutionalEncoder
from kaleido_fast.model.patch_encoders.dct import DctEncoder
from kaleido_fast.model.patch_encoders.efficientnet_lite0 import EfficientnetLite0Encoder
from kaleido_fast.model.patch_encoders.interface import PatchEncoder
from kaleido_fast.model.patch_encoders.linear import LinearEncoder
from kaleido_fast.model.patch_encoders.resnet50 import Resnet50Encoder
from kaleido_fast.model.settings import KaleidoSettings, ModelSettings

ENCODERS: dict[str, type[PatchEncoder]] = {
    encoder.name: encoder
    for encoder in (AbsentEncoder, DctEncoder, EfficientnetLite0Encoder, LinearEncoder, Resnet50Encoder)
}


def build_patch_encoder(settings: ModelSettings, kaleido: KaleidoSettings) -> PatchEncoder:
    """The encoder that `model.patch_encoder` names; a pre-trained one without its weights (`load_patch_encoder`).

    Raises:
        ValueError: kaleido.patch_size is too small for it.
    """
    if settings.patch_encoder == LinearEncoder.name:
        return LinearEncoder(kaleido.patch_size, kaleido.mean, kaleido.std, settings.patch_features or settings.hidden)
    if settings.patch_encoder == AbsentEncoder.name:
        return AbsentEncoder(kaleido.patch_size, settings.patch_features)
    return ENCODERS[settings.patch_encoder](kaleido.patch_size, kaleido.mean, kaleido.std)


def check_patch_encoder(settings: ModelSettings, kaleido: KaleidoSettings) -> None:
    """Refuse settings that do not go with the encoder (ValueError, naming the keys)."""
    encoder = ENCODERS[settings.patch_encoder]
    encoder.check_patch_size(kaleido.patch_size)
    if settings.patch_features < 0:
        raise ValueError(f"model.patch_features={settings.patch_features} must not be negative; 0 stands for "
                         "model.hidden")
    if encoder is AbsentEncoder:
        if not settings.patch_features:
            raise ValueError("model.patch_encoder=none needs model.patch_features=F, the width of the features that come "
                             "from elsewhere; 2048 in the authors' files")
    elif settings.patch_features and encoder is not LinearEncoder:
        raise ValueError(f"model.patch_features={settings.patch_features} is for the linear encoder; {encoder.name} has "
                         f"{encoder.num_features} features; take it out")
    if settings.patch_encoder_weights and not issubclass(encoder, ConvolutionalEncoder):
        raise ValueError(f"model.patch_encoder_weights={settings.patch_encoder_weights}: the {encoder.name} encoder "
                         "reads no weights; take it out")
    if encoder is Resnet50Encoder and not settings.patch_encoder_weights:
        raise ValueError(
            "model.patch_encoder=resnet50 needs model.patch_encoder_weights=FILE: torchvision's resnet50-*.pth (its "
            "resnet50(weights='DEFAULT') downloads it), or a .safetensors of the same names; 'random' draws weights, "
            "for benchmarks")
