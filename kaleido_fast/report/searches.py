"""The report's section of searches: what an index finds for a few texts."""

from collections.abc import Sequence
from pathlib import Path

from kaleido_fast.report.measure_parts import measure_section
from kaleido_fast.report.page import Markup
from kaleido_fast.search.index import KaleidoIndex
from kaleido_fast.search.shown import thumbnail
from kaleido_fast.tasks.report_parts import Answer, Example, Picture, Section

NUM_SHOWN = 6  # products of each search
SIDE = 160  # pixels of a picture, at most


def searches(index_folder: Path, texts: Sequence[str]) -> Markup:
    """The first products of each text, as pictures in a row.

    Raises:
        ValueError: no index there, a text of which the model knows no word, or a photograph that cannot be read.
    """
    index = KaleidoIndex.open(index_folder)
    note = (f"The first {NUM_SHOWN} of the {len(index):,} products of {index_folder} for a text, with their cosines: the mean "
            "of that of the product's text and of its best photograph. Nothing says which of them are right.")
    return measure_section(Section("Searches", note, [_search(index, text) for text in texts]))


def _search(index: KaleidoIndex, text: str) -> Example:
    hits = index.search(text, k=NUM_SHOWN)
    pictures = [Picture(thumbnail(index.photograph(hit.product, hit.photograph), SIDE), "jpeg", hit.text or hit.id)
                for hit in hits]
    return Example(text, "", [Answer(picture, right=False, score=hit.score, rank=place)
                              for place, (hit, picture) in enumerate(zip(hits, pictures, strict=True), 1)])
