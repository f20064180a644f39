"""A sample's own text, also where matching gave it another: what contrast compares photographs with (SPEC 10)."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

READING_BYTES = 8  # of a hash: two of a billion texts share one by chance once in forty runs


@dataclass(frozen=True, slots=True)
class OwnTexts:
    """Of a batch: nothing masked; of a hole [CLS] [SEP] alone."""

    tokens: Tensor  # (B, T) int32
    lengths: Tensor  # (B,) int32
    readings: Tensor  # (B,) int64, equal where the token rows are
    lengths_host: np.ndarray  # (B,) int32, the same lengths

    @classmethod
    def of(cls, uploaded: Mapping[str, Tensor], lengths: np.ndarray) -> "OwnTexts":
        """From what `own_text_arrays` gave, uploaded."""
        return cls(uploaded["own_tokens"], uploaded["own_lengths"], uploaded["readings"], lengths)


def own_text_arrays(tokens: np.ndarray, lengths: np.ndarray) -> dict[str, np.ndarray]:
    """What goes up of (B, T) int32 token rows and their (B,) int32 lengths."""
    return {"own_tokens": tokens, "own_lengths": lengths, "readings": readings(tokens)}


def readings(tokens: np.ndarray) -> np.ndarray:
    """(B,) int64 of (B, T) token rows: equal where the rows are."""
    hashes = b"".join(hashlib.blake2b(row.tobytes(), digest_size=READING_BYTES).digest() for row in tokens)
    return np.frombuffer(hashes, np.int64).copy()
