"""Why a product was found: how much of the cosine goes when a word, or a place of the photograph, is taken away.

A place is a cell of the finest grid. With it go the patches of the other fine levels (3 x 3 and finer) that hold its middle:
they are shown blank, as in training; the coarse levels stay, for a patch of theirs is most of the picture. The photograph
alone is looked at, whatever else the score was made of.
"""

import re
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from kaleido_fast.kernels.geometry import level_offsets
from kaleido_fast.search.index import KaleidoIndex
from kaleido_fast.search.result import Query

FINE = 3  # grid from which on a level's patches are taken away
MOST_WORDS = 40


@dataclass(frozen=True, slots=True)
class Reasons:
    """Losses of the cosine; what is negative speaks against the match."""

    cosine: float  # of the query and this photograph
    words_of: str  # "query" or "product"
    words: list[tuple[str, float]]
    grid: int
    places: list[float]  # grid x grid, row by row

    def values(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def reasons(index: KaleidoIndex, query: Query, product: int, photograph: int) -> Reasons:
    """Of the query's words, or of the product's where the query has none, and of the product's photograph.

    Raises:
        ValueError: as `index.search` and `index.square`.
    """
    embedding, encoder = index.embedding(query), index.encoder
    whole, without = _places(index, index.square(product, photograph))
    cosine = float(whole @ embedding)
    text = query.text or index.entries([product])[0].text
    words = re.findall(r"\S+", text)[:MOST_WORDS]
    parts = [" ".join(words[:place] + words[place + 1 :]) for place in range(len(words))]
    embedded = encoder.texts([" ".join(words), *parts]) if words else np.zeros((1, len(embedding)), np.float32)
    other = whole if query.text else embedding
    losses = (embedded[0] - embedded[1:]) @ other
    grid = index.encoder.model.kaleido.grids[-1]
    return Reasons(cosine, "query" if query.text else "product", list(zip(words, losses.tolist(), strict=True)), grid,
                   (cosine - without @ embedding).tolist())


@torch.inference_mode()
def _places(index: KaleidoIndex, square: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(E,) of a square, and (grid * grid, E) of it without each place of the finest grid."""
    encoder, grids = index.encoder, index.encoder.model.kaleido.grids
    features = encoder.pictures.of_squares(square[None]).to(encoder.device)
    finest, count = grids[-1], features.shape[1]
    source = torch.arange(count, dtype=torch.int32).repeat(1 + finest**2, 1)
    for row in range(finest):
        for column in range(finest):
            for grid, offset in zip(grids, level_offsets(grids), strict=True):
                if grid >= min(FINE, finest):
                    y, x = (int((place + 0.5) * grid / finest) for place in (row, column))
                    source[1 + row * finest + column, offset + y * grid + x] = -1
    ids = (encoder.vocabulary.cls_id, encoder.vocabulary.sep_id)
    embeddings = encoder.model.embed_photographs(features, ids, source.to(encoder.device)).cpu().numpy()
    return embeddings[0], embeddings[1:]
