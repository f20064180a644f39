"""Settings of the model; the defaults are the base shape (SPEC 7)."""

from dataclasses import dataclass
from typing import Literal

UNKNOWN = ""  # fingerprint of a vocabulary that was not given


@dataclass(frozen=True, slots=True)
class KaleidoSettings:
    """The patch grids, the five tasks and the masking (SPEC 2, 3 and 6)."""

    grids: tuple[int, ...] = (1, 2, 3, 4, 5)
    patch_size: int = 48  # P
    tasks: tuple[str, ...] = ("rotation", "jigsaw", "camouflage", "grey_to_color", "blank_to_color")
    num_grey: int = 2
    num_blank: int = 3
    blank_grid: int = 5
    max_masked_tokens: int = 10
    masking: Literal["guided", "random"] = "guided"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # ImageNet's, of x/255
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """The transformer (BERT-base by default) and its patch encoder."""

    hidden: int = 768  # H
    layers: int = 12
    heads: int = 12  # A
    intermediate: int = 3072
    dropout: float = 0.1
    attention_dropout: float = 0.0
    activation: Literal["gelu_tanh", "gelu_erf"] = "gelu_tanh"
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    max_positions: int = 512  # rows of the word position table
    patch_encoder: str = "dct"  # one of PATCH_ENCODERS, patch_encoders/build.py
    patch_encoder_weights: str = ""  # of a pre-trained one: a .pth or .safetensors file; "random" for benchmarks
    patch_features: int = 0  # F of the linear one (0: hidden), and of features from elsewhere ("none")
    features: Literal["computed", "stored"] = "computed"  # of the patches: in the step, or read from a feature store
    locations: Literal["unit", "pixels"] = "unit"
    attention: Literal["sdpa", "varlen", "xformers"] = "sdpa"
    compile: bool = False  # the encoder's layers, and on CUDA a pre-trained patch encoder, by torch.compile in training


@dataclass(frozen=True, slots=True)
class ReferenceSettings:
    """Definitions of the authors' code that ours differ from on purpose (SPEC 3 and 8)."""

    kl_clip: bool = False  # both probabilities of the colour losses clipped to [1e-7, 1]
    joint_grey_softmax: bool = False  # one softmax over a sample's grey targets joined
    amlm_epsilon: float = 0.0  # added to the number of masked tokens; the authors' 1e-5


@dataclass(frozen=True, slots=True)
class InitSettings:
    """What the weights start from."""

    bert: str = ""  # folder of a Hugging Face BERT: config.json, vocab.txt, model.safetensors; "": random
    weights: str = ""  # folder that `kaleido-fast export` or `import-tf` wrote


@dataclass(frozen=True, slots=True)
class VocabularySettings:
    """What the model must know of the shards' vocabulary; read from their manifest."""

    size: int = 30522  # ids in use
    padded_size: int = 30528  # rows of the word table, a multiple of 64
    fingerprint: str = UNKNOWN  # SHA-256 of vocab.txt: as many words are not yet the same words
