"""Which photographs belong to which product, by the names of the files in a folder and the folders in it.

    <id>.jpg or <id>_0.jpg, then <id>_1.jpg, <id>_2.jpg, ...; .jpeg, .png, .webp, .gif, .bmp, .tif, .avif, ... alike

A name that is itself a product's id is that product's alone: with the ids 7 and 7_1 the file 7_1.jpg is no photograph of
7, which may lie in another split. An id may be the file's whole name.
"""

import os
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from kaleido_fast.data.catalogue.skipping import Skipped

MAX_PHOTOGRAPHS = 64  # of one product
ENDINGS = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "jfif", "jpe", "avif")
OF_NO_PRODUCT = "files of no product"
BELOW = "files in sub-folders of products whose photographs lie above them"


def photographs_by_id(images: Path, ids: Collection[str], skipped: Skipped) -> dict[str, tuple[Path, ...]]:
    """The photographs of each of `ids`, in the order of their numbers: one listing of the folder, not a look-up a product.

    Sub-folders hold those of the products that have none in the folder itself. A file whose name means a photograph that is
    there already, or one too many, goes to `skipped`; files of no product are noticed there.
    """
    files: dict[str, dict[int, Path]] = {}  # of each product, by their numbers
    above: frozenset[str] = frozenset()  # products with photographs in the folder itself
    for name in photograph_names(images):
        file = images / name
        if "/" in name and not above:
            above = frozenset(files)
        product, number = _meaning(canonical(file.name), ids)
        if not product or "/" in name and product in above:
            skipped.notice(BELOW if product else OF_NO_PRODUCT, name)
            continue
        numbered = files.setdefault(product, {})
        if number >= MAX_PHOTOGRAPHS:
            skipped.add(f"photograph number above {MAX_PHOTOGRAPHS - 1}", name)
        elif number in numbered:
            there = numbered[number].relative_to(images)
            skipped.add("second file of a photograph", f"{name}: {there} is that photograph already")
        else:
            numbered[number] = file
    return {product: tuple(path for _, path in sorted(numbered.items())) for product, numbered in files.items() if numbered}


def photograph_names(images: Path) -> Iterator[str]:
    """Files that are named as photographs, relative to the folder: its own by name, then those of its sub-folders.

    A pipe or a link to nothing is no file, whatever its name: reading a pipe would wait for ever.
    """
    return _names(images, "")


def _names(folder: str | Path, inside: str) -> Iterator[str]:
    with os.scandir(folder) as opened:
        entries = sorted(opened, key=lambda entry: entry.name)
    yield from (inside + entry.name for entry in entries if _is_photograph(entry))
    for entry in entries:
        if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
            yield from _names(entry.path, f"{inside}{entry.name}/")


def _is_photograph(entry: os.DirEntry) -> bool:
    stem, _, ending = entry.name.rpartition(".")
    return bool(stem) and ending.lower() in ENDINGS and entry.is_file()


class NearMisses:
    """What is said of a product without a photograph: a file whose name differs as tools make ids differ."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names: dict[str, str] = {}
        for name in names:
            self._names.setdefault(_loose(Path(name).stem), name)

    def of(self, product: str) -> str:
        """"" where there is none."""
        name = self._names.get(_loose(product))
        if name is None:
            return ""
        if product.endswith(".0") and not Path(name).stem.endswith(".0"):
            why = "the id became a fraction; read and write it as text (pandas: dtype=str)"
        elif _loose(product) != product.lower() or len(Path(name).stem) == len(product):
            why = "name both alike"
        else:
            why = "the id's leading zero is lost; read and write it as text (pandas: dtype=str)"
        return f"; a file {name} is there: {why}"


def canonical(name: str) -> str:
    """One spelling of what reads the same: some systems write é in a file's name as two characters."""
    return unicodedata.normalize("NFC", name)


def _loose(stem: str) -> str:
    return canonical(stem).lower().removesuffix(".0").lstrip("0")


def _meaning(name: str, ids: Collection[str]) -> tuple[str, int]:
    """The product and the number of its photograph; "" for a file of no product."""
    stem = name.rpartition(".")[0]
    if stem in ids:
        return stem, 0
    if name in ids:
        return name, 0
    head, _, number = stem.rpartition("_")
    return (head, int(number)) if head in ids and number.isdecimal() and len(number) < 10 else ("", 0)
