"""The readers of catalogues: what each declares, and that `prepare` takes any that keeps to the interface."""

import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import pytest
from PIL import Image

from kaleido_fast import catalogue_flags
from kaleido_fast.catalogue_flags import reader_flags
from kaleido_fast.cli import main
from kaleido_fast.data.catalogue.formats.csv_catalogue import CsvCatalogue
from kaleido_fast.data.catalogue.photograph import UnusablePhotograph, store_photograph
from kaleido_fast.data.catalogue.prepare import PrepareOptions, prepare
from kaleido_fast.data.catalogue.product import PhotographBytes, PhotographFile, PhotographSource, Product
from kaleido_fast.data.catalogue.readers import READERS
from kaleido_fast.data.catalogue.row_rules import split_of
from kaleido_fast.data.catalogue.skipping import Skipped
from kaleido_fast.data.shards.split import SPLITS, Split
from kaleido_fast.options import Flag
from tests.data.conftest import COLOURS, draw_photograph


def _png(number: int) -> bytes:
    out = io.BytesIO()
    draw_photograph(list(COLOURS.values())[number % 4], seed=number).save(out, "PNG")
    return out.getvalue()


@dataclass(frozen=True, slots=True)
class LatePhotograph:
    """A photograph whose bytes are made in the worker process."""

    number: int

    @property
    def name(self) -> str:
        return f"picture {self.number}"

    def read(self) -> bytes:
        if self.number == 7:
            raise OSError("gone")
        return _png(self.number)


@dataclass(frozen=True, slots=True)
class OwnFormat:
    """A reader from outside: photographs as bytes and as what reads itself; no table, no folder."""

    CATALOG_IS: ClassVar[str] = "whatever; 100 % of it is drawn"

    catalog: tuple[Path, ...]
    colour: Annotated[str, Flag("of what is in its texts", "WORD")] = "red"

    @property
    def place(self) -> Path:
        return self.catalog[0]

    def products(self, skipped: Skipped) -> Iterator[Product]:
        skipped.add("of no colour", "drawing 9")
        for number in range(40):
            first: PhotographSource = LatePhotograph(number)
            second = PhotographBytes(f"b{number}", _png(number))
            text, split = f"{self.colour} thing {number}", split_of(f"o{number}")
            yield Product(f"o{number}", text, "all", "all", split, (first, second), f"drawing {number}")


@pytest.mark.parametrize("processes", [1, 2])
def test_a_reader_from_outside_is_prepared(tmp_path: Path, processes: int) -> None:
    summary = prepare(PrepareOptions(OwnFormat((tmp_path / "x",)), tmp_path / "s", vocab_size=100, max_skipped=0.1,
                                     processes=processes))
    assert sum(summary.products.values()) == 40 and sum(summary.photographs.values()) == 79
    assert summary.skipped == {"of no colour": 1, "unreadable file": 1}
    seen = set()
    for name in (name for name in SPLITS if summary.photographs[name]):
        split = Split.open(tmp_path / "s", name)
        assert split.manifest.skipped["unreadable file"] == ["drawing 7: picture 7"]
        for sample in range(split.num_samples):
            record = split.record(sample)
            seen.add((record["id"], record["photo"]))
            expected = np.asarray(Image.open(io.BytesIO(_png(int(record["id"][1:])))).convert("RGB")).astype(int)
            stored = np.asarray(Image.open(io.BytesIO(split.read(sample)))).astype(int)
            assert np.abs(stored - expected).mean() < 3
    assert len(seen) == 79 and ("o7", 0) not in seen


def test_a_reader_is_one_row_for_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(READERS, "own", OwnFormat)
    assert reader_flags()["colour"].readers == ("own",)
    monkeypatch.setattr(catalogue_flags, "SOURCES", (*READERS, catalogue_flags.KALEIDO_TSV))
    monkeypatch.setattr("kaleido_fast.cli.SOURCES", catalogue_flags.SOURCES)
    with pytest.raises(SystemExit):
        main(["prepare", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "csv: CSV file with a header; jsonl: file of JSON objects, one a line; parquet: Parquet files" in text
    assert "own: whatever; 100 % of it is drawn; kaleido-tsv: the authors' feature files, one or several" in text
    given = ["prepare", "--from", "own", "--catalog", "a", "b", "--colour", "mauve", "--max-skipped", "0.1"]
    assert main([*given, "--out", str(tmp_path / "s")]) == 0
    assert Split.open(tmp_path / "s", "train").record(0)["text"].startswith("mauve thing")
    for flags, message in (
        (["--from", "own", "--catalog", "a", "--images", "x"],
         "--images: --from own does not take it; it takes --catalog, --out, "),
        (["--catalog", "a", "--images", "x", "--colour", "red"], "--colour: --from csv does not take it"),
        (["--catalog", "a", "b", "--images", "x"],
         "--catalog: 2 files, but --from csv reads one; several go with --from parquet, fashiongen-h5, "
         "webdataset, own, kaleido-tsv"),
    ):
        assert main(["prepare", *flags, "--out", str(tmp_path / "t")]) == 2
        assert message in capsys.readouterr().err


def test_what_readers_declare_fits_together() -> None:
    """One flag means one thing, whoever takes it; what has no default and no flag is --catalog alone."""
    for reader, catalogue in READERS.items():
        annotations = {name: hint for base in catalogue.__mro__ for name, hint in getattr(base, "__annotations__", {}).items()}
        for name, flag in reader_flags().items():
            if name in annotations:
                assert flag.flag in annotations[name].__metadata__ and reader in flag.readers
        bare = {field.name for field in fields(catalogue) if field.name not in reader_flags()}
        assert bare == {"catalog"}, reader


def test_photographs_say_where_they_are_from(tmp_path: Path, photograph: Callable[..., Image.Image]) -> None:
    photograph((200, 30, 30)).save(tmp_path / "7.jpg")
    file = PhotographFile(tmp_path / "7.jpg")
    data = PhotographBytes("seven", (tmp_path / "7.jpg").read_bytes())
    assert (file.name, data.name) == ("7.jpg", "seven")
    assert store_photograph(file, 1024) == store_photograph(data, 1024)
    with pytest.raises(UnusablePhotograph, match="unreadable file"):
        store_photograph(PhotographFile(tmp_path / "8.jpg"), 1024)
    with pytest.raises(UnusablePhotograph, match="empty file"):
        store_photograph(PhotographBytes("nothing", b""), 1024)


def test_the_command_line_loads_no_heavy_package_for_its_flags() -> None:
    heavy = ("numpy", "PIL", "torch", "tokenizers")
    code = f"import sys, kaleido_fast.cli; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_columns_are_set_by_name(make_catalogue: Callable[..., Path]) -> None:
    folder = make_catalogue(6)
    catalogue = CsvCatalogue(folder / "styles.csv", folder / "images", text=("description",), category="", subcategory="")
    products = list(catalogue.products(Skipped()))
    assert [product.text for product in products][:2] == ["a red thing, number 0", "a green thing, number 1"]
    assert {(product.category, product.subcategory) for product in products} == {("", "")}
    assert [[source.name for source in product.photographs] for product in products][:2] == [["p0.jpg", "p0_1.jpg"], ["p1.jpg"]]
