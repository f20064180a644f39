"""Which file of a folder is whose photograph."""

import unicodedata
from pathlib import Path

import pytest

from kaleido_fast.data.catalogue.photograph_files import canonical, photographs_by_id
from kaleido_fast.data.catalogue.skipping import Skipped


def _found(folder: Path, ids: list[str], *names: str) -> tuple[dict[str, list[str]], Skipped]:
    for name in names:
        (folder / name).write_bytes(b"x")
    skipped = Skipped()
    found = photographs_by_id(folder, set(ids), skipped)
    return {product: [path.name for path in paths] for product, paths in found.items()}, skipped


def test_endings_of_any_format_and_case_in_the_order_of_numbers(tmp_path: Path) -> None:
    names = ["7.JPG", "7_10.png", "7_2.webp", "7_1.Jpeg", "8_0.tif", "8.txt", "9_1.GIF", "stray.jpg", ".jpg", "noend"]
    found, skipped = _found(tmp_path, ["7", "8", "9"], *names)
    assert found == {"7": ["7.JPG", "7_1.Jpeg", "7_2.webp", "7_10.png"], "8": ["8_0.tif"], "9": ["9_1.GIF"]}
    assert not skipped.total()


def test_a_name_that_is_an_id_is_no_photograph_of_another_product(tmp_path: Path) -> None:
    found, skipped = _found(tmp_path, ["7", "7_1"], "7.jpg", "7_1.jpg", "7_1_1.jpg", "7_2.jpg")
    assert found == {"7": ["7.jpg", "7_2.jpg"], "7_1": ["7_1.jpg", "7_1_1.jpg"]}
    assert not skipped.total()


@pytest.mark.parametrize(("names", "kept", "counts"), [
    (["7.jpg", "7.png"], ["7.jpg"], {"second file of a photograph": ["7.png: 7.jpg is that photograph already"]}),
    (["7.jpg", "7_0.jpg"], ["7.jpg"], {"second file of a photograph": ["7_0.jpg: 7.jpg is that photograph already"]}),
    (["7.jpg", "7_01.jpg", "7_1.jpg"], ["7.jpg", "7_01.jpg"],
     {"second file of a photograph": ["7_1.jpg: 7_01.jpg is that photograph already"]}),
    (["7.jpg", "7_63.jpg", "7_64.jpg"], ["7.jpg", "7_63.jpg"], {"photograph number above 63": ["7_64.jpg"]}),
])
def test_no_file_of_a_product_is_lost_without_a_word(tmp_path: Path, names: list[str], kept: list[str], counts: dict) -> None:
    found, skipped = _found(tmp_path, ["7"], *names)
    assert found == {"7": kept} and skipped.examples == counts


def test_a_superscript_is_no_number(tmp_path: Path) -> None:
    """str.isdigit takes ² for a digit, int() does not."""
    assert _found(tmp_path, ["7"], "7.jpg", "7_².jpg")[0] == {"7": ["7.jpg"]}


def test_one_spelling_of_an_accent(tmp_path: Path) -> None:
    composed, apart = "caf\u00e9", unicodedata.normalize("NFD", "caf\u00e9")
    assert composed != apart and canonical(apart) == composed
    assert _found(tmp_path, [composed], f"{apart}.jpg", f"{apart}_1.jpg")[0] == {composed: [f"{apart}.jpg", f"{apart}_1.jpg"]}
