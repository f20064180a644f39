"""Which photographs belong to which product, by the names of the files in one folder.

    <id>.jpg or <id>_0.jpg, then <id>_1.jpg, <id>_2.jpg, ...; .jpeg, .png, .webp, .gif, .bmp, .tif, .tiff alike

A name that is itself a product's id is that product's alone: with the ids 7 and 7_1 the file 7_1.jpg is no photograph of
7, which may lie in another split.
"""

import os
import unicodedata
from collections.abc import Collection
from pathlib import Path

from kaleido_fast.data.catalogue.skipping import Skipped

MAX_PHOTOGRAPHS = 64  # of one product
ENDINGS = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")


def photographs_by_id(images: Path, ids: Collection[str], skipped: Skipped) -> dict[str, tuple[Path, ...]]:
    """The photographs of each of `ids`, in the order of their numbers: one listing of the folder, not a look-up a product.

    A file whose name means a photograph that is there already, or one too many, goes to `skipped`; files of no product are
    left alone.
    """
    files: dict[str, dict[int, Path]] = {}  # of each product, by their numbers
    with os.scandir(images) as entries:
        names = sorted(entry.name for entry in entries if _is_photograph(entry))
    for name in names:
        product, number = _meaning(canonical(name.rpartition(".")[0]), ids)
        if not product:
            continue
        numbered = files.setdefault(product, {})
        if number >= MAX_PHOTOGRAPHS:
            skipped.add(f"photograph number above {MAX_PHOTOGRAPHS - 1}", name)
        elif number in numbered:
            skipped.add("second file of a photograph", f"{name}: {numbered[number].name} is that photograph already")
        else:
            numbered[number] = images / name
    return {product: tuple(path for _, path in sorted(numbered.items())) for product, numbered in files.items() if numbered}


def canonical(name: str) -> str:
    """One spelling of what reads the same: some systems write é in a file's name as two characters."""
    return unicodedata.normalize("NFC", name)


def _is_photograph(entry: os.DirEntry) -> bool:
    stem, _, ending = entry.name.rpartition(".")
    return bool(stem) and ending.lower() in ENDINGS and entry.is_file()


def _meaning(stem: str, ids: Collection[str]) -> tuple[str, int]:
    """The product and the number of its photograph; "" for a file of no product."""
    if stem in ids:
        return stem, 0
    head, _, number = stem.rpartition("_")
    return (head, int(number)) if head in ids and number.isdecimal() and len(number) < 10 else ("", 0)
