"""prepare with fields: the text and its tokens stay what they are, the shards know where each field lies; old shards go on."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kaleido_fast.cli import main
from kaleido_fast.data.catalogue.formats.csv_catalogue import CsvCatalogue
from kaleido_fast.data.catalogue.formats.jsonl_catalogue import JsonlCatalogue
from kaleido_fast.data.catalogue.prepare import PrepareOptions, prepare
from kaleido_fast.data.catalogue.skipping import Skipped
from kaleido_fast.data.check.folder import check_folder
from kaleido_fast.data.shards.manifest import FORMAT, FORMAT_OF_FIELDS, Manifest
from kaleido_fast.data.shards.split import Split

FIELDS = ("title=productDisplayName", "more=description")


def _prepared(folder: Path, out: Path, **columns: object) -> Path:
    catalogue = CsvCatalogue(folder / "styles.csv", folder / "images", **columns)
    prepare(PrepareOptions(catalogue, out, vocab_size=200, processes=1))
    return out


def _emptied(folder: Path) -> None:
    """Product 3 gets no title, product 4 no description."""
    lines = (folder / "styles.csv").read_text().splitlines()
    lines[4], lines[5] = "p3,Cat1,Shirts,,\"a black thing\"", "p4,Cat0,Shoes,red Shoes 4,"
    (folder / "styles.csv").write_text("\n".join(lines) + "\n")


def test_fields_beside_the_text_that_their_columns_give(make_catalogue: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_catalogue(20)
    _emptied(folder)
    plain, parted = _prepared(folder, tmp_path / "plain"), _prepared(folder, tmp_path / "parted", field=FIELDS)
    assert Manifest.read(plain).format == FORMAT and "fields" not in json.loads((plain / "manifest.json").read_text())
    assert Manifest.read(parted).format == FORMAT_OF_FIELDS and Manifest.read(parted).fields == ("title", "more")
    assert Manifest.read(parted).fingerprint != Manifest.read(plain).fingerprint
    for name in ("train", "test"):
        split, other = Split.open(parted, name), Split.open(plain, name)
        rows, others = (of.rows(np.arange(of.num_samples)) for of in (split, other))
        for column in ("tokens", "num_tokens", "key", "crc", "product", "category", "subcategory"):
            assert (rows[column] == others[column]).all()
        for sample, ranges in enumerate(split.fields(np.arange(split.num_samples))):
            record, before = split.record(sample), other.record(sample)
            assert {key: record[key] for key in before} == before
            assert list(record["fields"]) == ["more", "title"] and set(record) - set(before) == {"fields"}
            assert record["text"] == ". ".join(filter(None, (record["fields"]["title"], record["fields"]["more"])))
            (start, stop), (begin, end) = ranges.tolist()
            separators = bool(record["fields"]["title"]) and bool(record["fields"]["more"])
            assert (stop - start) + (end - begin) + separators == rows["num_tokens"][sample]
            assert (stop - start > 0) == bool(record["fields"]["title"]) and (end > begin) == bool(record["fields"]["more"])
            if separators:
                assert (start, begin, end) == (0, stop + 1, rows["num_tokens"][sample])
    assert (parted / "train-000000.table.npy").stat().st_size == (plain / "train-000000.table.npy").stat().st_size


def test_the_command_and_json_lines(make_catalogue: Callable[..., Path], tmp_path: Path,
                                    capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_catalogue(20)
    given = ["prepare", "--catalog", str(folder / "styles.csv"), "--images", str(folder / "images"), "--vocab-size", "200",
             "--out", str(tmp_path / "s")]
    assert main([*given, "--field", "title=productDisplayName", "--field", "colour=description", "kind=articleType"]) == 0
    assert Manifest.read(tmp_path / "s").fields == ("title", "colour", "kind")
    assert main(["data", "check", str(tmp_path / "s")]) == 0
    capsys.readouterr()
    assert main(["data", "show", str(tmp_path / "s"), "--out", str(tmp_path / "sheet.png")]) == 0
    assert "field kind: 100.0% of the products have it; tokens: least 1, median 1" in capsys.readouterr().out
    line = {"id": "p1", "productDisplayName": "Red shoe", "masterCategory": "a", "articleType": "b"}
    (folder / "styles.jsonl").write_text(json.dumps(line) + "\n")
    reader = JsonlCatalogue(folder / "styles.jsonl", folder / "images", field=("kind=articleType", "title=productDisplayName"))
    (product,) = reader.products(Skipped())
    assert product.text == "b. Red shoe" and product.fields == (("kind", "b"), ("title", "Red shoe"))


@pytest.mark.parametrize(("flags", "message"), [
    (["--field", "title"], "--field title: expected NAME=COLUMN such as title=productDisplayName"),
    (["--field", "title=productDisplayName", "--text", "description"], "--field takes the place of --text; give one of them"),
    (["--field", "title=productDisplayNam"], "no column 'productDisplayNam'; did you mean 'productDisplayName'? (it has id, "
     "masterCategory, articleType, productDisplayName, description); name it with --field"),
])
def test_refusals(flags: list[str], message: str, make_catalogue: Callable[..., Path], tmp_path: Path,
                  capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_catalogue(3)
    assert main(["prepare", "--catalog", str(folder / "styles.csv"), "--images", str(folder / "images"),
                 "--out", str(tmp_path / "s"), *flags]) == 2
    assert message in capsys.readouterr().err


def test_shards_without_fields_say_so(make_catalogue: Callable[..., Path], tmp_path: Path) -> None:
    split = Split.open(_prepared(make_catalogue(20), tmp_path / "plain"), "train")
    with pytest.raises(ValueError, match="plain: the texts of these shards have no fields; run prepare with field={...}"):
        split.fields(np.arange(2))


def test_check_explains_damage(make_catalogue: Callable[..., Path], tmp_path: Path) -> None:
    shards = _prepared(make_catalogue(30), tmp_path / "s", field=FIELDS)
    lines: list[str] = []
    assert check_folder(shards, lines.append, processes=1).findings == 0
    ranges = np.load(shards / "train-000000.fields.npy")
    ranges[5, 1, 0] -= 1
    np.save(shards / "train-000000.fields.npy", ranges)
    check_folder(shards, lines.append, processes=1)
    assert any("train-000000.fields.npy, sample 5, product p" in line and ", the fields have [[0, " in line for line in lines)
    tar = (shards / "train-000000.tar").read_bytes()
    (shards / "train-000000.tar").write_bytes(tar.replace(b'"more": "a ', b'"more": "b ', 1).replace(b'"title"', b'"tilte"', 2))
    lines.clear()
    check_folder(shards, lines.append, processes=1)
    assert any("expected title, more, each with its text" in line for line in lines)
    (shards / "train-000000.fields.npy").unlink()
    lines.clear()
    check_folder(shards, lines.append, processes=1)
    assert any("train-000000.fields.npy: missing" in line for line in lines)
