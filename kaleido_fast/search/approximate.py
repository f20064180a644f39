"""Approximate search with faiss: rows in cells around centres, of which a query looks at the nearest ones alone.

Two files beside the index, one of its photographs and one of its texts, of the state that the index had when they were made,
and how many of the exact best they find. faiss-cpu is a package of its own, the extra `faiss`.
"""

import json
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kaleido_fast.files import cannot_write, read_json, replace_text
from kaleido_fast.options import INDEX_APPROXIMATE, OptionError
from kaleido_fast.search.exact import greatest
from kaleido_fast.search.folder import NEXT, Contents

FILES = {"photographs": "photographs.faiss", "texts": "texts.faiss"}
NOTE = "approximate.json"  # the state that they were made of, and their recall
QUERIES, BEST = 1000, 10  # the recall: queries, and how many of each query's exact best are looked for
A_CELL = 39  # rows that faiss asks for to find a centre
FEWEST_CELLS, ENOUGH = 8, 0.95  # a query looks into twice as many cells until it finds this share of the exact best
SEED = 0


class ApproximateSummary(NamedTuple):
    """What was made."""

    folder: Path
    recall: dict[str, float]  # of photographs and texts, where there are some
    queries: int
    seconds: float

    def describe(self) -> str:
        """A line for a person."""
        shares = ", ".join(f"{value:.1%} of {name}" for name, value in self.recall.items())
        return (f"{self.folder}: approximate index made in {self.seconds:.0f} s; it finds {shares} that exact search has among "
                f"the first {BEST} ({self.queries:,} queries)")


class Approximate:
    """Nearest rows of an index, most of them."""

    def __init__(self, folder: Path, contents: Contents) -> None:
        """Raises ValueError: faiss is not installed, or the files are not there, or of another state of the index."""
        faiss = _faiss()
        if not (folder / NOTE).exists() or read_json(folder / NOTE, *_again()).get("state") != contents.header.state:
            what = "made before the index was changed" if (folder / NOTE).exists() else "none was made"
            raise OptionError(f"{folder}: no approximate index, {what}; make one with ", INDEX_APPROXIMATE)
        try:
            self._indexes = {name: faiss.read_index(str(folder / file)) for name, file in FILES.items()
                             if (folder / file).exists()}
        except RuntimeError as error:
            reason = str(error).splitlines()[-1]
            raise OptionError(f"{folder}: an approximate index that cannot be read ({reason}); make it again with ",
                              INDEX_APPROXIMATE) from None
        rows = {"photographs": len(contents.photographs), "texts": len(contents.texts)}
        for name, index in self._indexes.items():
            if index.ntotal != rows[name]:
                raise OptionError(f"{folder / FILES[name]}: {index.ntotal} rows, the index has {rows[name]}; make it again "
                                  "with ", INDEX_APPROXIMATE)

    def nearest(self, what: str, query: np.ndarray, count: int) -> np.ndarray:
        """At most `count` rows of the "photographs" or the "texts" nearest to `query` (E,) fp32."""
        if what not in self._indexes:
            return np.zeros(0, np.int64)
        _, rows = self._indexes[what].search(query[None], min(count, self._indexes[what].ntotal))
        return rows[0][rows[0] >= 0]


def make_approximate(folder: Path, contents: Contents) -> ApproximateSummary:
    """Write the files of an index and measure what they find.

    Raises:
        ValueError: faiss is not installed, the index is empty, or the files cannot be written.
    """
    faiss, started = _faiss(), time.perf_counter()
    if not contents.header.products:
        raise ValueError(f"{folder}: this index holds no products, so there is nothing to make an approximate one of")
    rows = {"photographs": contents.photographs, "texts": contents.texts}
    if not contents.header.texts:
        del rows["texts"]
    queries = _queries(contents)
    recall = {}
    try:
        (folder / NOTE).unlink(missing_ok=True)
        for name, embeddings in rows.items():
            values = np.asarray(embeddings, np.float32)
            index = _made(faiss, values)
            recall[name] = _tuned(index, values, queries)
            faiss.write_index(index, str(folder / (FILES[name] + NEXT)))
            os.replace(folder / (FILES[name] + NEXT), folder / FILES[name])
    except (OSError, RuntimeError) as error:
        raise cannot_write(folder, error, "make room") from error
    if "texts" not in rows:
        (folder / FILES["texts"]).unlink(missing_ok=True)
    summary = ApproximateSummary(folder, recall, len(queries), time.perf_counter() - started)
    replace_text(folder / NOTE, json.dumps({"state": contents.header.state, "recall": recall, "queries": len(queries)}) + "\n")
    return summary


def _made(faiss: Any, rows: np.ndarray) -> Any:
    """Cells of fp16 rows (n, E) fp32; one cell, which is exact, where there are few."""
    cells = max(1, min(int(4 * len(rows) ** 0.5), len(rows) // A_CELL))
    index = faiss.IndexIVFScalarQuantizer(faiss.IndexFlatIP(rows.shape[1]), rows.shape[1], cells,
                                          faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    draw = np.random.Generator(np.random.PCG64(SEED))
    trained = min(len(rows), cells * 64)
    index.train(np.ascontiguousarray(rows[np.sort(draw.choice(len(rows), trained, replace=False))]))
    for start in range(0, len(rows), 65536):
        index.add(rows[start : start + 65536])
    return index


def _queries(contents: Contents) -> np.ndarray:
    """(q, E) fp32: texts of drawn products, or their photographs where no product has a text."""
    rows = contents.texts if contents.header.texts else contents.photographs
    usable = np.flatnonzero(np.any(rows, axis=1))
    draw = np.random.Generator(np.random.PCG64(SEED))
    return np.asarray(rows[np.sort(draw.choice(usable, min(QUERIES, len(usable)), replace=False))], np.float32)


def _tuned(index: Any, rows: np.ndarray, queries: np.ndarray) -> float:
    """Share of each query's exact best rows that the index finds, when it looks into as many cells as that takes."""
    best = []
    for start in range(0, len(queries), 100):  # of a million rows the cosines are 400 MB
        best += [greatest(cosines, BEST) for cosines in queries[start : start + 100] @ rows.T]
    index.nprobe = min(FEWEST_CELLS, index.nlist)
    while True:
        _, nearest = index.search(queries, BEST)
        recall = sum(len(np.intersect1d(*pair)) for pair in zip(best, nearest, strict=True)) / sum(map(len, best))
        if recall >= ENOUGH or index.nprobe == index.nlist:
            return recall
        index.nprobe = min(2 * index.nprobe, index.nlist)


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise ValueError("approximate search needs the package faiss-cpu, which is not installed: pip install "
                         "'kaleido_fast[faiss]', or search exactly") from None
    return faiss


def _again() -> tuple[Any, ...]:
    return "make the approximate index again with ", INDEX_APPROXIMATE
