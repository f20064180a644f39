"""The largest mistakes of a classifier, as figures and as a picture."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

PAIRS, CLASSES = 10, 12  # mistakes that are listed, classes that the picture has
CELL, NAME, FONT = 44, 130, 12  # pixels: a cell's side, the width of the names, letters
MOST_LETTERS = 18
INK, RIGHT, WRONG = (29, 33, 41), (47, 133, 90), (197, 48, 48)
OTHER = "(other)"  # row and column of what the picture has no room for


def largest_mistakes(predicted: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """The pairs that are confused most often, and the table of the classes in them; empty where nothing is wrong.

    Args:
        predicted, labels: (N,) int64 numbers of `names`.
    Returns:
        "pairs": {"is", "taken_for", "products"}, the most frequent first, by the order of `names` where equal; "classes"; and
        "counts": of each class that products are, how many are taken for each of the classes, and for any other.
    """
    table = np.zeros((len(names), len(names)), np.int64)
    np.add.at(table, (labels, predicted), 1)
    wrong = table.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
    pairs = [(int(place // len(names)), int(place % len(names))) for place in order if wrong.flat[place]]
    if not pairs:
        return {}
    classes = list(dict.fromkeys(number for pair in pairs for number in pair))[:CLASSES]
    counts = [[*table[row, classes].tolist(), int(table[row].sum() - table[row, classes].sum())] for row in classes]
    return {"pairs": [{"is": names[row], "taken_for": names[column], "products": int(wrong[row, column])}
                      for row, column in pairs],
            "classes": [names[number] for number in classes], "counts": counts}


def confusion_picture(classes: Sequence[str], counts: Sequence[Sequence[int]]) -> bytes:
    """PNG: a row for what products are, a column for what they are taken for; green is right, red is wrong, both as a share of
    the row. Arguments as `largest_mistakes` gives them."""
    columns, font = [*classes, OTHER], ImageFont.load_default(FONT)
    picture = Image.new("RGB", (NAME + CELL * len(columns), NAME + CELL * len(classes)), "white")
    draw = ImageDraw.Draw(picture)
    for number, name in enumerate(columns):
        label = Image.new("L", (NAME, FONT + 4))
        ImageDraw.Draw(label).text((2, 0), _short(name), fill=255, font=font)
        upright = label.rotate(90, expand=True)
        picture.paste(INK, (NAME + CELL * number + (CELL - FONT) // 2, 0), upright)
    for row, (name, values) in enumerate(zip(classes, counts, strict=True)):
        top = NAME + CELL * row
        draw.text((2, top + CELL // 2), _short(name), fill=INK, font=font, anchor="lm")
        for column, value in enumerate(values):
            share = value / max(sum(values), 1)
            color = tuple(round(255 - share * (255 - part)) for part in (RIGHT if column == row else WRONG))
            left = NAME + CELL * column
            draw.rectangle((left, top, left + CELL - 2, top + CELL - 2), fill=color)
            if value:
                draw.text((left + CELL // 2, top + CELL // 2), str(value), fill="white" if share > 0.6 else INK, font=font,
                          anchor="mm")
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def _short(name: str) -> str:
    return name if len(name) <= MOST_LETTERS else f"{name[: MOST_LETTERS - 1]}…"
