"""Tables and flags that are not what they should be: refused in one line, or rows skipped, counted and named."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kaleido_fast.data.catalogue.formats.csv_catalogue import CsvCatalogue
from kaleido_fast.data.catalogue.photograph import UnusablePhotograph, store_photograph
from kaleido_fast.data.catalogue.product import PhotographFile
from kaleido_fast.data.catalogue.skipping import Skipped
from kaleido_fast.data.shards.split import Split

MUTATIONS = 200


def _add(*lines: str) -> Callable[[str], str]:
    return lambda text: text + "".join(line + "\n" for line in lines)


REFUSED: dict[str, tuple[Callable[[str], str | bytes], list[str], str]] = {
    "latin-1": (lambda text: text.replace("red thing 3", "crème").encode("latin-1"), [],
                "is not utf-8; name the file's own with --encoding, such as latin-1"),
    "utf-16": (lambda text: text.encode("utf-16"), [], "byte 0 is not utf-8; name the file's own with --encoding"),
    "unknown encoding": (lambda text: text, ["--encoding", "latin-11"], "cannot be read: unknown encoding: latin-11"),
    "nothing": (lambda text: "", [], "empty; expected a CSV file with a header"),
    "blank lines": (lambda text: "\n \n", [], "empty; expected a CSV file with a header"),
    "no rows": (lambda text: text.splitlines()[0], [], "a header and no rows; expected one row a product"),
    "no column": (lambda text: text.replace("articleType", "articleTyp"), [],
                  "no column 'articleType'; did you mean 'articleTyp'?"),
    "a column twice": (lambda text: text.replace("description", "id"), ["--text", "productDisplayName"],
                       "2 columns are called 'id'; rename all but one, or name another with --id"),
    "an open quote": (lambda text: text.replace("red thing 9", '"red thing 9'), [],
                      "line 11: not valid CSV: a quote is left open there, up to the end of the file"),
    "a field without end": (lambda text: text + 'p99,"' + "x" * 200_000, [],
                            "line 17: not valid CSV: a quote is left open there, up to the end of the file"),
    "a photograph as table": (lambda text: b"\xff\xd8\xff\xe0" * 20, [], "byte 0 is not utf-8"),
    "no train row": (lambda text: text.replace(",train", ",test"), [],
                     "no usable product in the train split; give more products"),
    "skipping more than all": (lambda text: text, ["--max-skipped", "1.5"], "--max-skipped=1.5 must lie in 0..1"),
    "no side": (lambda text: text, ["--max-side", "0"], "--max-side=0 must lie in 16..65500 pixels"),
    "semicolons": (lambda text: text.replace(",", ";"), [], "the header is one field, give --delimiter ';' if that is what"),
    "tabs": (lambda text: text.replace(",", "\t"), [], "the header is one field, give --delimiter tab if that is what"),
    "no sub-category": (lambda text: text.replace("articleType", "kind_"), [],
                        "name it with --subcategory, or give --subcategory '' where there is none"),
    "a long delimiter": (lambda text: text, ["--delimiter", ";;"],
                         "--delimiter=';;' must be one character such as ';', or tab"),
    "no words": (lambda text: text, ["--vocab-size", "0"], "--vocab-size=0 must be at least 1"),
    "no vocabulary": (lambda text: text, ["--vocab", "none.txt"], "none.txt: cannot be read as a vocabulary"),
    "no truth": (lambda text: text, ["--truth", "none.jsonl"], "none.jsonl: not a truth file of a generated catalogue"),
}

SKIPPED: dict[str, tuple[Callable[[str], str], str]] = {
    "../ in the id": (_add("../p3,Cat0,Kind0,name,text,train"), "1 x unusable id (row 17: id '../p3', an id must not hold /,"),
    "/ before the id": (_add("/etc/passwd,Cat0,Kind0,name,text,train"),
                        "1 x unusable id (row 17: id '/etc/passwd', an id must"),
    "a newline in the id": (_add('"p3\np4",Cat0,Kind0,name,text,train'), r"1 x unusable id (row 17: id 'p3\np4', an id must"),
    "no id": (_add(" ,Cat0,Kind0,name,text,train"), "1 x unusable id (row 17: id '', an id must"),
    "the same id": (_add("p3,Cat0,Kind0,name,text,train"), "1 x duplicate id (row 17: id p3 is that of row 5)"),
    "an empty text": (_add("q,Cat0,Kind0, ,,train"), "1 x empty text (row 17: id q)"),
    "too few fields": (_add("q,Cat0"), "1 x wrong number of fields (row 17)"),
    "too many fields": (_add("q,Cat0,Kind0,name, with a comma,text,train"), "1 x wrong number of fields (row 17)"),
    "an unknown split": (_add("q,Cat0,Kind0,name,text,tarin"),
                         "1 x unknown split (row 17: id q: 'tarin', expected train, validation, valid, val, test)"),
    "no photograph": (_add("q,Cat0,Kind0,name,text,train"), "1 x no photograph (row 17: id q)"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_used_is_refused(catalogue: Path, prepare, kind: str) -> None:
    change, flags, message = REFUSED[kind]
    file = catalogue / "styles.csv"
    text = change(file.read_text())
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    answer = prepare(*flags)
    assert answer.code == 2 and message in answer.err


@pytest.mark.parametrize("kind", SKIPPED)
def test_a_row_that_cannot_be_used_is_skipped_counted_and_named(catalogue: Path, prepare, tmp_path: Path, kind: str) -> None:
    change, message = SKIPPED[kind]
    file = catalogue / "styles.csv"
    file.write_text(change(file.read_text()))
    (tmp_path / "p3.jpg").write_bytes((catalogue / "images" / "p3.jpg").read_bytes())  # what ../p3 would reach
    refused = prepare()
    assert refused.code == 2 and "1 of 16 products or photographs cannot be used" in refused.err and message in refused.err
    answer = prepare("--max-skipped", 0.1)
    assert answer.code == 0 and f"skipped: {message.partition(' (')[0]}" in answer.out
    assert Split.open(tmp_path / "shards", "train").num_products == 12


def _record_of(shards: Path, name: str) -> tuple[dict, int]:
    split = Split.open(shards, "train")
    for sample in range(split.num_samples):
        if split.record(sample)["id"] == name:
            return split.record(sample), int(split.rows(np.array([sample]))["num_tokens"][0])
    raise AssertionError(name)


ACCEPTED: dict[str, tuple[Callable[[str], bytes], list[str], str]] = {
    "a byte order mark": (lambda text: b"\xef\xbb\xbf" + text.encode(), [], "red thing 3. one of many"),
    "latin-1, named": (lambda text: text.replace("red thing 3", "crème").encode("latin-1"), ["--encoding", "latin-1"],
                       "crème. one of many"),
    "utf-16, named": (lambda text: text.encode("utf-16"), ["--encoding", "utf-16"], "red thing 3. one of many"),
    "windows lines": (lambda text: text.replace("\n", "\r\n").encode(), [], "red thing 3. one of many"),
    "quoted newlines and quotes": (lambda text: text.replace("red thing 3", '"red\n""thing"",\n3"').encode(), [],
                                   'red\n"thing",\n3. one of many'),
    "blank lines between": (lambda text: text.replace("\n", "\n\n").encode(), [], "red thing 3. one of many"),
    "semicolons, named": (lambda text: text.replace(",", ";").replace("red thing 3", "red, 3").encode(), ["--delimiter", ";"],
                          "red, 3. one of many"),
    "tabs, named": (lambda text: text.replace(",", "\t").encode(), ["--delimiter", "tab"], "red thing 3. one of many"),
    "no category": (lambda text: text.replace("masterCategory,articleType", "x,y").encode(),
                    ["--category", "", "--subcategory", ""], "red thing 3. one of many"),
    "10,000 words": (lambda text: text.replace("red thing 3", "red " * 10_000).encode(), [],
                     "red " * 9_999 + "red. one of many"),
    "a zero byte in a text": (lambda text: text.replace("red thing 3", "red\0thing").encode(), [], "red\0thing. one of many"),
    "only unknown letters": (lambda text: text.replace("red thing 3", "\U0001f457").encode(), [], "\U0001f457. one of many"),
}


@pytest.mark.parametrize("kind", ACCEPTED)
def test_a_table_that_can_be_used_is_read_as_it_means(catalogue: Path, prepare, kaleido, tmp_path: Path, kind: str) -> None:
    change, flags, text = ACCEPTED[kind]
    file = catalogue / "styles.csv"
    file.write_bytes(change(file.read_text()))
    answer = prepare(*flags)
    assert answer.code == 0 and "skipped: none" in answer.out
    record, tokens = _record_of(tmp_path / "shards", "p3")
    assert record["text"] == text and 0 < tokens <= 510
    assert kaleido("data", "check", tmp_path / "shards").code == 0


def test_folders_in_the_way_are_named(catalogue: Path, kaleido, only_inside, tmp_path: Path) -> None:
    given = ["prepare", "--catalog", catalogue / "styles.csv", "--split", "part"]
    with only_inside(tmp_path):
        for images, out, message in (
            (tmp_path / "none", tmp_path / "s", "none: no such folder of photographs; give --images"),
            (catalogue / "images", catalogue, "catalogue: not empty; give another --out or remove it"),
            (catalogue / "images", catalogue / "styles.csv" / "s", "styles.csv/s: cannot be written: Not a directory"),
        ):
            answer = kaleido(*given, "--images", images, "--out", out)
            assert answer.code == 2 and message in answer.err


def test_mutated_photographs_are_stored_or_refused(catalogue: Path) -> None:
    """Whatever three changed bytes make of a JPEG: a picture, or a reason."""
    draw, data = random.Random(5), (catalogue / "images" / "p3.jpg").read_bytes()
    file, outcomes = catalogue / "mutated.jpg", set()
    for _ in range(MUTATIONS):
        file.write_bytes(_mutated(draw, data))
        try:
            outcomes.add(type(store_photograph(PhotographFile(file), 1024)).__name__)
        except UnusablePhotograph as error:
            assert str(error)
            outcomes.add("reason")
    assert outcomes == {"StoredPhotograph", "reason"}


def test_mutated_tables_are_read_or_refused(catalogue: Path) -> None:
    """Whatever three changed bytes make of a table: products and skipped rows, or one line that names the file."""
    draw, data = random.Random(6), (catalogue / "styles.csv").read_bytes()
    file, outcomes = catalogue / "mutated.csv", set()
    for _ in range(MUTATIONS):
        file.write_bytes(_mutated(draw, data))
        skipped = Skipped()
        try:
            products = list(CsvCatalogue(file, catalogue / "images", split="part").products(skipped))
            assert len({product.id for product in products}) == len(products) <= 16
            outcomes.add("skipped" if skipped.total() else "read")
        except ValueError as error:
            assert str(file) in str(error) and "\n" not in str(error)
            outcomes.add("refused")
    assert outcomes == {"read", "skipped", "refused"}


def _mutated(draw: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(3):
        changed[draw.randrange(len(changed))] = draw.randrange(256)
    return bytes(changed)
