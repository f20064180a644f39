"""Settings of the input side (SPEC 2, 4 and 6)."""

from dataclasses import dataclass
from typing import Annotated, Literal

from kaleido_fast.kernels.philox import EVALUATION_EPOCH
from kaleido_fast.settings import ALIGNMENT, CAPTIONER, FEATURES, AtLeast, Between, Decides, Free, OnDisk, Unit


@dataclass(frozen=True, slots=True)
class DataSettings:
    """What the loader reads and how it draws the text of a sample."""

    shards: Annotated[str, OnDisk(), Free(), "folder that `kaleido-fast prepare` wrote; a resumed run takes the same shards, "
                      "wherever they lie now"] = ""
    store: Annotated[str, OnDisk(), Free(), "folder of the photographs' features, which `kaleido-fast encode` writes; the "
                     "folder `features` inside the shards where it is empty"] = ""
    store_dtype: Annotated[Literal["fp32", "fp16", "uint8"], "type of a number in the store; uint8 has a scale a row"] = "fp16"
    pin_store: Annotated[bool, Free(), "whether the store is locked in memory, one copy for all workers of a machine"] = False
    image_size: Annotated[int, Between(1, 4096), Unit("pixels"), Decides(FEATURES, CAPTIONER),
                          "S, side of the square that a photograph becomes; a multiple of every grid"] = 240
    max_tokens: Annotated[int, AtLeast(3), Unit("tokens"), Decides(CAPTIONER, ALIGNMENT),
                          "T, longest text, with [CLS] and [SEP]"] = 64
    alignment: Annotated[str, "name of the alignment files beside the shards that masking goes by, such as `truth`; `none` "
                         "for random masking"] = "none"
    itm_negatives: Annotated[Literal["random", "subcategory", "mined"],
                             "where the text of a mismatched pair comes from: any product, or one of the same "
                             "sub-category; `mined`: the hard share from those of the sub-category that contrast finds most "
                             "alike"] = "random"
    itm_hard_share: Annotated[float, Between(0, 1), "share of mismatched texts from the same sub-category, from epoch "
                              "`data.itm_hard_from` on"] = 0.0
    itm_hard_from: Annotated[int, Between(0, EVALUATION_EPOCH - 1), Unit("epochs"),
                             "first epoch with mismatched texts of the same sub-category"] = 0
    mine_every: Annotated[int, Between(1, EVALUATION_EPOCH - 1), Unit("epochs"), "how often negatives are mined anew; before "
                          "the first time all are random"] = 1
    mine_count: Annotated[int, Between(1, 4096), Unit("products"), "mined negatives of a product"] = 32
    field_dropout: Annotated[float, Between(0, 1), "chance that a field of a training text is left out, drawn for each sample "
                             "and epoch; one that is drawn too always stays. The shards' texts must have fields"] = 0.0
    field_shuffle: Annotated[bool, "whether the fields of a training text come in a drawn order. The shards' texts must "
                             "have fields"] = False
    word_dropout: Annotated[float, Between(0, 1), "chance that a word piece of the text which contrast compares is left out, "
                            "drawn for each sample and epoch; one piece always stays"] = 0.0
    decode_threads: Annotated[int, Between(1, 256), Free(), "threads of a worker that decode photographs"] = 2
    prefetch: Annotated[int, Between(1, 64), Free(), Unit("batches"), "how far the loader works ahead of the step"] = 2
    max_holes: Annotated[float, Between(0, 1), Free(), "share of unreadable photographs that stops the run; of the samples "
                         "seen, or of one epoch where that is more"] = 0.01

    @property
    def changes_fields(self) -> bool:
        """Whether training drops or shuffles fields."""
        return self.field_dropout > 0 or self.field_shuffle

    def check(self) -> None:
        """Refuse mining of what is never drawn (ValueError, naming the keys)."""
        if self.itm_negatives == "mined" and not self.itm_hard_share:
            raise ValueError("data.itm_negatives=mined: data.itm_hard_share=0 never draws one; set it above 0, such as 0.5, or "
                             "data.itm_negatives=random")
