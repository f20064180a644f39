"""examples.json: a few retrieval queries with their best candidates and pictures, for the report."""

import base64
import io
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from PIL import Image

from kaleido_fast.data.batches.batch import Batch
from kaleido_fast.data.shards.split import BrokenSample, Split
from kaleido_fast.tasks.products import Products
from kaleido_fast.tasks.retrieval import Ranked, Retrieval

BEST = 5
PICTURE_SIDE = 144  # pixels
JPEG_QUALITY = 82


def collect_examples(
    result: Retrieval,
    products: Products,
    split: Split,
    read: Callable[[np.ndarray], Iterator[Batch]],
    count: int,
) -> tuple[dict[str, list[Any]], dict[str, str]]:
    """The first `count` queries of the first draw in each direction, and every picture among them once.

    Args:
        read: batches of (n,) int64 samples in their order.
    Returns:
        {"itr": [...], "tir": [...]}, and base64 JPEGs by sample number. An example holds "query", "rank", "candidates" and
        "top", the best and behind them the right one where it is not among them; a product "id", "text", "picture" and, as a
        candidate, "score", "right" and "rank".
    """
    shown = _Shown(products, split)
    examples = {
        name: [shown.example(ranked[0], row) for row in range(min(count, len(ranked[0].draw.queries)))]
        for name, ranked in (("itr", result.itr), ("tir", result.tir))
    }
    return examples, shown.pictures(read)


class _Shown:
    """Products as examples show them; remembers whose photographs are needed."""

    def __init__(self, products: Products, split: Split) -> None:
        self._products, self._split = products, split
        self._samples: set[int] = set()

    def example(self, ranked: Ranked, row: int) -> dict[str, Any]:
        draw, right = ranked.draw, int(ranked.ranks[row])
        places = list(enumerate(ranked.best(row, BEST), start=1))
        if right > BEST:
            places.append((right, 0))
        return {
            "query": self._product(draw.queries[row], draw.photos),
            "rank": right,
            "candidates": int(draw.present[row].sum()),
            "top": [
                self._product(draw.candidates[row, column], draw.photos)
                | {"score": float(ranked.scores[row, column]), "right": column == 0, "rank": place}
                for place, column in places
            ],
        }

    def pictures(self, read: Callable[[np.ndarray], Iterator[Batch]]) -> dict[str, str]:
        """Base64 JPEGs of all photographs shown, as the model sees them: the locked squares."""
        return jpeg_pictures(read(np.array(sorted(self._samples), np.int64)))

    def _product(self, product: int, photos: np.ndarray) -> dict[str, Any]:
        sample = int(self._products.samples(np.array([product]), photos)[0])
        self._samples.add(sample)
        try:
            text = self._split.record(sample)["text"]
        except BrokenSample as error:
            text = f"({error})"
        return {"id": self._split.products["id"][product].decode(), "text": text, "picture": str(sample)}


def jpeg_pictures(batches: Iterable[Batch]) -> dict[str, str]:
    """Base64 JPEGs of the photographs of batches, by sample number, as the model sees them: the locked squares."""
    return {
        str(sample): _jpeg(image)
        for batch in batches
        for sample, image in zip(batch.host.samples, batch.images.cpu().numpy(), strict=True)
        if sample >= 0
    }


def _jpeg(image: np.ndarray) -> str:
    stream = io.BytesIO()
    Image.fromarray(image).resize((PICTURE_SIDE, PICTURE_SIDE)).save(stream, "JPEG", quality=JPEG_QUALITY)
    return base64.b64encode(stream.getvalue()).decode("ascii")
