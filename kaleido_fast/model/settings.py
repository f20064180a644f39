"""Settings of the model; the defaults are the base shape (SPEC 7)."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from kaleido_fast.model.task_table import PAPERS_TASKS
from kaleido_fast.settings import ALIGNMENT, CAPTIONER, FEATURES, AtLeast, Between, Decides, MayChange, OnDisk, Unit

UNKNOWN = ""  # fingerprint of a vocabulary that was not given
RANDOM = "random"  # in place of a file of weights: drawn
Masking = Literal["guided", "random"]
Attention = Literal["auto", "sdpa", "triton", "varlen", "xformers"]


@dataclass(frozen=True, slots=True)
class KaleidoSettings:
    """The patch grids, the kaleido tasks and the masking (SPEC 2, 3 and 6)."""

    grids: Annotated[tuple[int, ...], Between(1, 64), Decides(FEATURES, ALIGNMENT),
                     "levels of the pyramid: a level of grid g cuts the picture into g x g patches"] = (1, 2, 3, 4, 5)
    patch_size: Annotated[int, Between(1, 1024), Unit("pixels"), Decides(FEATURES),
                          "P, side that every patch is resized to"] = 48
    tasks: Annotated[tuple[str, ...], "kaleido tasks that are trained, rows of model/task_table.py; a level whose task is off "
                     "is shown as it is"] = PAPERS_TASKS
    num_grey: Annotated[int, Between(0, 64), Unit("patches"), "patches of a sample shown grey, for grey_to_color"] = 2
    num_blank: Annotated[int, Between(0, 64), Unit("patches"), "patches of a sample shown blank, for blank_to_color"] = 3
    blank_grid: Annotated[int, Between(1, 64), "grid of the level whose patches are blanked"] = 5
    max_masked_tokens: Annotated[int, Between(0, 510), Unit("tokens"), "most masked words of a text"] = 10
    masking: Annotated[Masking, "how words and patches are masked; `guided`: together where an alignment "
                       "says how; `random`: drawn apart"] = "guided"
    mean: Annotated[tuple[float, float, float], Between(-1000, 1000), Decides(FEATURES, CAPTIONER),
                    "mean of x/255 by channel, taken off every pixel; ImageNet's"] = (0.485, 0.456, 0.406)
    std: Annotated[tuple[float, float, float], Between(1e-6, 1000), Decides(FEATURES, CAPTIONER),
                   "standard deviation by channel that every pixel is divided by"] = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """The transformer (BERT-base by default) and its patch encoder."""

    hidden: Annotated[int, Between(1, 2**16), "H, width of the transformer; a multiple of `model.heads`"] = 768
    layers: Annotated[int, Between(1, 1000), "layers of the transformer"] = 12
    heads: Annotated[int, Between(1, 1024), "attention heads a layer"] = 12
    intermediate: Annotated[int, Between(1, 2**20), "width between the two products of a layer's feed-forward part"] = 3072
    dropout: Annotated[float, Between(0, 0.99), "share of values dropped behind embeddings and sub-layers in training"] = 0.1
    attention_dropout: Annotated[float, Between(0, 0.99), "share of attention weights dropped in training"] = 0.0
    activation: Annotated[Literal["gelu_tanh", "gelu_erf"], "GELU by the tangent approximation or exact; a BERT that the "
                          "weights start from has its own"] = "gelu_tanh"
    layer_norm_eps: Annotated[float, Between(0, 1), "number added to the variance in every LayerNorm; BERT's value alone is "
                              "supported"] = 1e-12
    initializer_range: Annotated[float, Between(0, 1), "standard deviation of random weights"] = 0.02
    max_positions: Annotated[int, Between(1, 2**16), Unit("tokens"), "rows of the word position table, at least "
                             "`data.max_tokens`"] = 512
    patch_encoder: Annotated[str, Decides(FEATURES), "what turns a patch into F numbers"] = "dct"
    patch_encoder_weights: Annotated[str, OnDisk(RANDOM), "weights of a pre-trained patch encoder, a .pth or .safetensors "
                                     "file; an installed package's where it is empty; `random` draws them, for "
                                     "benchmarks"] = ""
    patch_features: Annotated[int, AtLeast(0), "F of `linear` (0: `model.hidden`) and of `none`; 0 for other patch "
                              "encoders"] = 0
    features: Annotated[Literal["computed", "stored"], "whether a step encodes its patches or reads their features from "
                        "`data.store`"] = "computed"
    locations: Annotated[Literal["unit", "pixels"], "unit of a patch's location: the picture's side, or a pixel as in the "
                         "authors' code"] = "unit"
    attention: Annotated[Attention, MayChange(), "implementation of attention over packed "
                         "sequences; `auto`: the best that is there"] = "auto"
    itc_dim: Annotated[int, Between(0, 2**14), "numbers of the embedding of a photograph or a text alone, which contrast (itc) "
                       "trains; 0: there are none"] = 0
    compile: Annotated[bool, MayChange(), "whether torch.compile builds the layers, and on CUDA a pre-trained patch encoder, "
                       "for training"] = False

    def check(self) -> None:
        """Refuse values that do not go together (ValueError, naming the keys)."""
        if self.hidden % self.heads:
            raise ValueError(f"model.hidden={self.hidden} must be a multiple of model.heads={self.heads}")
        if self.attention in ("triton", "varlen") and self.attention_dropout:
            raise ValueError(f"model.attention={self.attention} has no dropout, found model.attention_dropout="
                             f"{self.attention_dropout:g}; set it to 0, or model.attention=auto")
        if self.compile and self.attention_dropout:
            raise ValueError(f"model.compile=true has attention without dropout alone, found model.attention_dropout="
                             f"{self.attention_dropout:g}; set model.attention_dropout=0 or model.compile=false")


@dataclass(frozen=True, slots=True)
class ReferenceSettings:
    """Definitions of the authors' code that ours differ from on purpose (SPEC 3 and 8)."""

    kl_clip: Annotated[bool, "whether both probabilities of the colour losses are clipped to [1e-7, 1]"] = False
    joint_grey_softmax: Annotated[bool, "whether one softmax goes over all grey targets of a sample"] = False
    amlm_epsilon: Annotated[float, Between(0, 1), "what is added to the count of masked words; 1e-5 in the authors' code"] = 0.0


@dataclass(frozen=True, slots=True)
class InitSettings:
    """What the weights start from; random weights where both are empty."""

    bert: Annotated[str, OnDisk(), "folder of a Hugging Face BERT: config.json, vocab.txt, model.safetensors"] = ""
    weights: Annotated[str, OnDisk(RANDOM), "folder that `kaleido-fast export` or `import-tf` wrote, or a run's; `random`: "
                       "drawn, as fine-tuning must be told"] = ""

    @property
    def folder(self) -> str:
        """Of the weights; empty where there are none to be read."""
        return "" if self.weights == RANDOM else self.weights

    def check(self) -> None:
        """Refuse two starts (ValueError)."""
        if self.bert and self.weights:
            raise ValueError(f"init.bert={self.bert} and init.weights={self.weights}: give one of the two")


@dataclass(frozen=True, slots=True)
class VocabularySettings:
    """What the model must know of the shards' vocabulary; read from their manifest."""

    size: int = 30522  # ids in use
    padded_size: int = 30528  # rows of the word table, a multiple of 64
    fingerprint: str = UNKNOWN  # SHA-256 of vocab.txt: as many words are not yet the same words


@dataclass(frozen=True, slots=True)
class FineTuned:
    """What a model was fine-tuned for; kept with its weights."""

    task: str  # row of finetune/table.py
    labels: tuple[str, ...] = ()  # names of the classes, by number; none where the task has no classes
    settings: dict[str, Any] = field(default_factory=dict)  # what else using the model needs, as plain JSON values
