"""data show: the numbers are those of a catalogue whose numbers are known; the sheet shows squares and fill colours."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kaleido_fast.cli import main
from kaleido_fast.data.check.statistics import split_statistics
from kaleido_fast.data.shards.split import Split
from kaleido_fast.data.shards.tokenizer import SPECIAL
from kaleido_fast.report.contact_sheet import Locked, contact_sheet, spread_samples

WORDS = 70  # of the longest text: past 64


def _photograph(file: Path, found: bool) -> None:
    """40 x 40: a block of 20 x 20 at (10, 10) on white, or noise in which nothing stands out."""
    pixels = np.full((40, 40, 3), 250, np.uint8)
    pixels[10:30, 10:30] = (200, 0, 0)
    if not found:
        pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, quality=95, subsampling=0)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six products in train, two in validation, one with two photographs, one without a foreground, one long text."""
    folder = tmp_path_factory.mktemp("show")
    (folder / "images").mkdir()
    lines = ["id,masterCategory,articleType,productDisplayName,description,part"]
    for number in range(8):
        part = "validation" if number >= 6 else "train"
        text = "word " * WORDS if number == 2 else "word"
        lines.append(f"p{number}$,{'A' if number < 5 else 'B'},Kind{number % 2},{text},word,{part}")
        _photograph(folder / "images" / f"p{number}$.jpg", found=number != 1)
    _photograph(folder / "images" / "p3$_1.jpg", found=True)
    (folder / "styles.csv").write_text("\n".join(lines) + "\n")
    assert main(["prepare", "--catalog", str(folder / "styles.csv"), "--images", str(folder / "images"), "--out",
                 str(folder / "shards"), "--split", "part"]) == 0
    return folder / "shards"


def test_numbers_of_a_known_catalogue(shards: Path) -> None:
    numbers = split_statistics(Split.open(shards, "train"))
    assert numbers.num_photographs == 7 and len(numbers.photographs) == 6 and sorted(numbers.photographs) == [1] * 5 + [2]
    assert numbers.no_foreground == 1 and numbers.broken == 0
    assert max(numbers.tokens) == WORDS + 2 and min(numbers.tokens) == 3  # the text's parts are joined by a dot
    assert numbers.unknown == 0
    side = 20 + 2 * 1  # grown by a twentieth on each side
    assert sorted(np.unique(numbers.locked_share.round(4)).tolist()) == pytest.approx([side**2 / 1600, 1.0], abs=1e-3)


def test_tokens_that_the_vocabulary_does_not_know_are_told(shards: Path, tmp_path: Path, capsys) -> None:
    """A BERT's vocabulary on texts of another script: most of them would be [UNK] without a word."""
    (tmp_path / "vocab.txt").write_text("".join(f"{word}\n" for word in (*SPECIAL, ".", "a")))
    catalogue = shards.parent
    assert main(["prepare", "--catalog", str(catalogue / "styles.csv"), "--images", str(catalogue / "images"), "--out",
                 str(tmp_path / "shards"), "--split", "part", "--vocab", str(tmp_path / "vocab.txt")]) == 0
    assert split_statistics(Split.open(tmp_path / "shards", "train")).unknown == 5 * 2 + WORDS + 1
    assert main(["data", "show", str(tmp_path / "shards"), "--out", str(tmp_path / "sheet.png")]) == 0
    assert "vocabulary 7 words, 91.4% of the tokens are unknown to it" in capsys.readouterr().out


def test_show_prints_them_and_draws(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(shards.iterdir())
    assert main(["data", "show", str(shards), "--out", str(tmp_path / "new" / "sheet.png")]) == 0
    out = capsys.readouterr().out
    for line in (
        "train               6 products          7 photographs", "validation          2 products          2 photographs",
        "photographs a product: 1: 7, 2: 1", "12.5% are cut at 64", "no foreground found, locked whole: 1 of 9",
        "2 categories: A 5, B 3", "2 sub-categories: Kind0 4, Kind1 4", "most 72", "median 30 %, p95 72 %, most 100 %",
    ):
        assert line in out, out
    assert (tmp_path / "new" / "sheet.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(shards.iterdir()) == before


def test_a_broken_photograph_is_counted_and_crossed_out(shards: Path, tmp_path: Path) -> None:
    split = Split.open(shards, "train")
    row = split.rows(np.array([0]))[0]
    tar = shards / "train-000000.tar"
    data = tar.read_bytes()
    try:
        tar.write_bytes(data[: row["offset"]] + bytes(200) + data[row["offset"] + 200 :])
        assert split_statistics(Split.open(shards, "train")).broken == 1
        titles = [photograph.title for photograph in spread_samples(Split.open(shards, "train"))]
        assert [title.endswith(": broken") for title in titles] == [True] + [False] * 6
    finally:
        tar.write_bytes(data)


def test_the_sheet_shows_the_square_inside_its_fill_colour() -> None:
    square = np.zeros((160, 160, 3), np.uint8)
    square[:] = (10, 200, 30)
    drawn = np.asarray(Image.open(io.BytesIO(contact_sheet([Locked("$one", square, (250, 20, 220))]))).convert("RGB"))
    inside, around = ((np.abs(drawn.astype(int) - colour).max(axis=2) < 8).sum() for colour in ((10, 200, 30), (250, 20, 220)))
    assert inside > 5000 and 0.2 < around / inside < 0.4  # (1 + 2 * 0.07)^2 - 1 is 0.30


def test_no_shards_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "show", str(tmp_path / "none"), "--out", str(tmp_path / "x.png")]) == 2
    assert "no manifest.json there" in capsys.readouterr().err and not list(tmp_path.iterdir())
