"""Settings of the input side (SPEC 2, 4 and 6)."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class DataSettings:
    """What the loader reads and how it draws the text of a sample."""

    shards: str = ""  # folder written by `kaleido-fast prepare`
    store: str = ""  # folder of the photographs' features that `kaleido-fast encode` writes; "": SHARDS/features
    store_dtype: Literal["fp32", "fp16", "uint8"] = "fp16"  # of its rows; uint8 with a scale a row
    pin_store: bool = False  # locked in memory, one copy for all workers of a machine
    image_size: int = 240  # S, side of the resized locked square; a multiple of every grid
    max_tokens: int = 64  # T, with [CLS] and [SEP]
    alignment: str = "none"  # "none", or the name of the alignment files beside the shards ("truth")
    itm_negatives: Literal["random", "subcategory"] = "random"
    itm_hard_share: float = 0.0  # share of sub-category negatives from epoch `itm_hard_from` on
    itm_hard_from: int = 0
    decode_threads: int = 2  # DALI's threads
    prefetch: int = 2  # batches decoded ahead of the step
    max_holes: float = 0.01  # share of the samples seen, or of one epoch where that is more, that may be unreadable
