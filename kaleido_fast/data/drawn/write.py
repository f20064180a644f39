"""generate: a catalogue on disk, with the ground truth that only a drawn one has.

    styles.csv        the columns of the Fashion Product Images table
    images/<id>.jpg, <id>_1.jpg, …
    masks/<id>_<photograph>.png     1 bit, the true foreground
    truth.jsonl       a line a photograph: size, box of the foreground, box and text spans of every named part
    generated.json    what it was generated from
"""

import csv
import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from kaleido_fast.data.drawn.draw import draw_photograph
from kaleido_fast.data.drawn.products import DrawnProduct, sample_products
from kaleido_fast.files import written_beside
from kaleido_fast.options import Option, OptionError
from kaleido_fast.progress_bar import ProgressBar

VERSION = 3  # of the drawing: raised when the same seed gives other pictures
COLUMNS = ("id", "gender", "masterCategory", "subCategory", "articleType", "baseColour", "season", "year", "usage",
           "productDisplayName", "description")
IN_PROCESS = 64  # fewer products are drawn without worker processes


def generate_catalogue(out: Path, num_products: int, seed: int, image_size: int = 224, progress: bool = False) -> bool:
    """Write a catalogue, beside and renamed when whole; False where the very same one is there already.

    Raises:
        ValueError: `out` holds something else, or sizes that cannot be.
    """
    if num_products < 1 or image_size < 64:
        raise ValueError(f"generate: {num_products} products of {image_size} px; give at least 1 product and 64 px")
    recipe = {"version": VERSION, "num_products": num_products, "seed": seed, "image_size": image_size}
    if out.exists() and any(out.iterdir()):
        if _recipe(out) == recipe:
            return False
        raise OptionError(f"{out}: not empty and not this catalogue; give another ", Option("out"), " or remove it")
    with written_beside(out, "generate") as beside:
        (beside / "images").mkdir()
        (beside / "masks").mkdir()
        products = list(sample_products(num_products, seed))
        _write_table(beside / "styles.csv", products)
        _write_photographs(beside, products, seed, image_size, progress)
        (beside / "generated.json").write_text(json.dumps(recipe), encoding="utf-8")
    return True


def drawing_of(folder: Path) -> int | None:
    """The version of the drawing of a generated catalogue; None of another folder."""
    recipe = _recipe(folder)
    return recipe["version"] if recipe else None


def _recipe(folder: Path) -> Any:
    try:
        return json.loads((folder / "generated.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _write_table(file: Path, products: list[DrawnProduct]) -> None:
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for product in products:
            article = product.article
            writer.writerow([product.id, product.gender, article.category, article.subcategory, article.article_type,
                             product.look.colour, "", "", "", product.title, product.description])


def _write_photographs(folder: Path, products: list[DrawnProduct], seed: int, size: int, progress: bool) -> None:
    work = partial(_write_product, folder=folder, seed=seed, size=size)
    with (folder / "truth.jsonl").open("w", encoding="utf-8") as truth, \
            ProgressBar(len(products), "generate", "product", shown=progress) as bar:
        if len(products) < IN_PROCESS:
            _collect(map(work, products), truth, bar)
            return
        with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
            _collect(pool.map(work, products, chunksize=16), truth, bar)


def _collect(records: Any, truth: Any, bar: ProgressBar) -> None:
    for lines in records:
        truth.write(lines)
        bar.update()


def _write_product(product: DrawnProduct, folder: Path, seed: int, size: int) -> str:
    """All photographs of a product; its lines of truth.jsonl."""
    lines = []
    for number in range(product.num_photographs):
        photograph = draw_photograph(product, number, seed, size)
        suffix = f"_{number}" if number else ""
        (folder / "images" / f"{product.id}{suffix}.jpg").write_bytes(photograph.jpeg)
        Image.fromarray(photograph.mask).save(folder / "masks" / f"{product.id}_{number}.png", optimize=False)
        parts = [{"name": name, "box": box, "spans": product.spans[name]}
                 for name, box in sorted(photograph.parts.items()) if name in product.spans]
        lines.append(json.dumps({"id": product.id, "photo": number, "size": [size, size], "box": photograph.box,
                                 "parts": parts}) + "\n")
    return "".join(lines)
