"""A catalogue of JSON Lines: the same shards as from CSV, gzip's too; broken lines skipped and named, a broken file refused."""

import csv
import gzip
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from kaleido_fast.cli import main
from kaleido_fast.data.catalogue.formats.csv_catalogue import CsvCatalogue
from kaleido_fast.data.catalogue.formats.jsonl_catalogue import JsonlCatalogue
from kaleido_fast.data.catalogue.prepare import PrepareOptions, prepare
from kaleido_fast.data.catalogue.skipping import Skipped


@pytest.fixture
def catalogue(make_catalogue: Callable[..., Path]) -> Path:
    """A folder with styles.csv, styles.jsonl and images/."""
    folder = make_catalogue(20)
    with (folder / "styles.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    (folder / "styles.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return folder


def _lines(folder: Path) -> list[str]:
    return (folder / "styles.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)


def _read(folder: Path, **columns: object) -> tuple[list, Skipped]:
    skipped = Skipped()
    return list(JsonlCatalogue(folder / "styles.jsonl", folder / "images", **columns).products(skipped)), skipped


def _digests(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


WRITTEN: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "byte order mark": lambda data: b"\xef\xbb\xbf" + data,
    "windows and blank lines": lambda data: data.replace(b"\n", b"\r\n\n"),
}


@pytest.mark.parametrize("how", WRITTEN)
def test_the_same_rows_give_the_shards_of_csv(catalogue: Path, tmp_path: Path, how: str) -> None:
    file = catalogue / "styles.jsonl"
    file.write_bytes(WRITTEN[how](file.read_bytes()))
    for name, reader in (("a", CsvCatalogue(catalogue / "styles.csv", catalogue / "images")),
                         ("b", JsonlCatalogue(file, catalogue / "images"))):
        prepare(PrepareOptions(reader, tmp_path / name, vocab_size=200, processes=1))
    assert _digests(tmp_path / "a") == _digests(tmp_path / "b")


def test_csv_is_read_through_gzip(catalogue: Path, tmp_path: Path) -> None:
    (catalogue / "packed").write_bytes(gzip.compress((catalogue / "styles.csv").read_bytes()))
    plain, packed = (list(CsvCatalogue(catalogue / name, catalogue / "images").products(Skipped()))
                     for name in ("styles.csv", "packed"))
    assert plain == packed and len(plain) == 20


def test_the_command_prepares_it(catalogue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["prepare", "--from", "jsonl", "--catalog", str(catalogue / "styles.jsonl"), "--images", str(catalogue / "images")]
    assert main([*given, "--vocab-size", "200", "--out", str(tmp_path / "s")]) == 0
    assert "skipped: none" in capsys.readouterr().out and main(["data", "check", str(tmp_path / "s")]) == 0


def test_values_become_texts(catalogue: Path) -> None:
    """Numbers and booleans as JSON writes them; null, and a key that is not there, are an empty cell."""
    (catalogue / "styles.jsonl").write_text("\n".join([
        '{"id": "p1", "name": "a bag", "price": 12.50, "kind": 3}', '{"id": "p2", "name": null, "price": 7, "kind": true}',
        '{"price": 1, "id": "p3"}', '{"id": "p4", "other": ["not", "read"]}']))
    products, skipped = _read(catalogue, text=("name", "price"), category="kind", subcategory="")
    assert [(product.id, product.text, product.category, product.place) for product in products] == [
        ("p1", "a bag. 12.5", "3", "line 1"), ("p2", "7", "true", "line 2"), ("p3", "1", "", "line 3")]
    assert skipped.examples == {"empty text": ["line 4: id p4"]}


SKIPPED = {
    "cut": ('{"id": "q", "productD', "not a JSON object", "line 21: Unterminated string starting at at column 13"),
    "a list": ('["q"]', "not a JSON object", "line 21: a JSON list"),
    "no UTF-8": (b'{"id": "\xff"}', "not a JSON object", "line 21: 'utf-8' codec can't decode byte 0xff"),
    "nested without end": ("[" * 100_000, "not a JSON object", "line 21: brackets within brackets, more than 500 deep"),
    "a list for a text": ('{"id": "q", "description": ["a", 1]}', "no text in a column",
                          """line 21: column 'description': "['a', 1]", expected text, a number or null"""),
    "half a character": (r'{"id": "q\ud800", "description": "x"}', "no text in a column", r"line 21: column 'id': 'q\ud800'"),
    "no id": ('{"description": "x"}', "unusable id", "line 21: id '', an id must"),
    "an id twice": ('{"id": "p3", "description": "x"}', "duplicate id", "line 21: id p3 is that of line 4"),
    "no photograph": ('{"id": "q", "description": "x"}', "no photograph", "line 21: id q"),
}


def test_brackets_in_a_text_are_no_nesting(catalogue: Path) -> None:
    with (catalogue / "styles.jsonl").open("a") as stream:
        stream.write('{"id": "p1000", "description": "' + "[x] " * 600 + '"}')
    _, skipped = _read(catalogue)
    assert list(skipped.counts.items()) == [("no photograph", 1)], "it was read"


@pytest.mark.parametrize("kind", SKIPPED)
def test_a_line_that_cannot_be_used_is_skipped_and_named_with_its_number(catalogue: Path, kind: str) -> None:
    line, reason, example = SKIPPED[kind]
    with (catalogue / "styles.jsonl").open("ab") as stream:
        stream.write(line if isinstance(line, bytes) else line.encode())
    products, skipped = _read(catalogue)
    assert len(products) == 20 and list(skipped.counts.items()) == [(reason, 1)]
    assert skipped.examples[reason][0].startswith(example)


REFUSED: dict[str, tuple[Callable[[Path], object], list[str], str]] = {
    "a missing column": (lambda file: file.write_text(file.read_text().replace("articleType", "articleTyp")), [],
                         "no column 'articleType'; did you mean 'articleTyp'? (it has id, masterCategory, articleTyp, "
                         "productDisplayName, description); name it with --subcategory, or give --subcategory '' where there "
                         "is none"),
    "another id": (lambda file: None, ["--id", "sku"], "no column 'sku' (it has id, "),
    "nothing": (lambda file: file.write_text("\n \n"), [], "styles.jsonl: empty; expected one JSON object a line"),
    "an object without keys": (lambda file: file.write_text("{}\n"), [], "the object of line 1 has no keys; expected one JSON"),
    "one array": (lambda file: file.write_text(json.dumps([{"id": 1}])), [],
                  "line 1 is not a JSON object: a JSON list (of one array make lines with jq -c '.[]'); "
                  "expected one JSON object"),
    "a CSV": (lambda file: file.write_text("id,text\n1,x\n"), [],
              "line 1 is not a JSON object: Expecting value at column 1; expected one JSON object a line"),
    "no file": (lambda file: file.unlink(), [], "styles.jsonl: no such catalogue"),
    "a folder": (lambda file: (file.unlink(), file.mkdir()), [], "styles.jsonl: cannot be read: Is a directory"),
    "gzip cut short": (lambda file: file.write_bytes(gzip.compress(file.read_bytes())[:-20]), [],
                       "styles.jsonl: cannot be read: Compressed file ended before the end-of-stream marker"),
    "gzip of another kind": (lambda file: file.write_bytes(gzip.compress(file.read_bytes())[:10] + b"\xff" * 100), [],
                             "styles.jsonl: cannot be read: Error -3 while decompressing data"),
    "gzip damaged": (lambda file: file.write_bytes(b"\x1f\x8b" + file.read_bytes()), [], "styles.jsonl: cannot be read: "),
    "half broken": (lambda file: file.write_text(file.read_text().replace("}\n", "\n", 10)), [],
                    "10 of 20 products or photographs cannot be used, more than the limit of 1.0% (--max-skipped): 10 x not a "
                    "JSON object (line 1: "),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_file_that_cannot_be_used_is_refused(
    catalogue: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change, flags, message = REFUSED[kind]
    change(catalogue / "styles.jsonl")
    given = ["--catalog", catalogue / "styles.jsonl", "--images", catalogue / "images", "--out", tmp_path / "s", *flags]
    assert main(["prepare", "--from", "jsonl", *map(str, given)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "s").exists()


def test_no_folder_of_photographs(catalogue: Path) -> None:
    with pytest.raises(ValueError, match="none: no such folder of photographs; give images"):
        list(JsonlCatalogue(catalogue / "styles.jsonl", catalogue / "none").products(Skipped()))
