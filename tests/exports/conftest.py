"""A model of random weights with contrast, and what our own package makes of two photographs and three texts."""

from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from kaleido_fast import KaleidoBert
from tests.exported import exported_model

TEXTS = ["a red shirt", "", "[MASK] blue Café shoes of leather " * 12]


class Expected(NamedTuple):
    """By our own package."""

    folder: Path
    files: list[Path]
    images: Tensor
    texts: Tensor
    pairs: Tensor  # (2,) logit of a match over that of a mismatch


@pytest.fixture(scope="session")
def expected(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Expected:
    folder = exported_model(tmp_path_factory.mktemp("exports") / "model", tiny_shards, itc_dim=8)
    files = sorted((tiny_shards.parent / "catalogue" / "images").glob("*.jpg"))[:2]
    model = KaleidoBert.from_pretrained(folder)
    with torch.no_grad():
        return Expected(folder, files, model.encode_image(files), model.encode_text(TEXTS), model.score(files, TEXTS[:2]))
