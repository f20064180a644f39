"""Feature files for tests: the golden rows again and again, each with a level 5 of its own, so a photograph of its own."""

from pathlib import Path

from kaleido_fast.authors.tsv_columns import PRETRAINING
from tests.places import GOLDEN

LEVEL_5 = [column.name for column in PRETRAINING.columns].index("img_feature_convert_blank_mask")


def write_feature_file(file: Path, count: int, broken: tuple[int, ...] = ()) -> Path:
    """`count` rows of the pre-training layout; those of `broken` lack a column."""
    lines = (GOLDEN / "kaleido_bert_small.tsv").read_bytes().splitlines()
    with file.open("wb") as stream:
        for number in range(count):
            cells = lines[number % len(lines)].split(b"\t")
            cells[LEVEL_5] = b"%d.5," % number + cells[LEVEL_5].partition(b",")[2]
            stream.write(b"\t".join(cells[1:] if number in broken else cells) + b"\n")
    return file
