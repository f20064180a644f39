"""The generated catalogue: repeatable, all different, its truth true."""

import hashlib
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kaleido_fast.data.catalogue.locking import find_foreground
from kaleido_fast.data.catalogue.row_rules import split_of
from kaleido_fast.data.drawn.draw import draw_photograph
from kaleido_fast.data.drawn.products import COLOURS, contrasting, sample_products
from kaleido_fast.data.drawn.write import VERSION, drawing_of, generate_catalogue


def _digests(folder: Path) -> dict[str, str]:
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in folder.rglob("*") if f.is_file()}


def test_the_same_seed_gives_the_same_bytes_in_a_catalogue_of_any_size(tmp_path) -> None:
    generate_catalogue(tmp_path / "a", 6, seed=3, image_size=96)
    generate_catalogue(tmp_path / "b", 6, seed=3, image_size=96)
    generate_catalogue(tmp_path / "c", 9, seed=3, image_size=96)
    a, b, c = (_digests(tmp_path / name) for name in "abc")
    assert a == b
    pictures = [name for name in a if name.startswith(("images", "masks"))]
    assert pictures and all(a[name] == c[name] for name in pictures)


def test_no_two_products_are_alike() -> None:
    products = list(sample_products(3000, seed=0))
    assert len({product.look for product in products}) == 3000
    assert len({(product.title + product.description).lower() for product in products}) == 3000
    train = {product.look for product in products if split_of(product.id) == "train"}
    assert not train & {product.look for product in products if split_of(product.id) == "test"}
    assert min(np.bincount([product.look.article for product in products])) > 200


def test_texts_name_what_is_drawn_where_the_spans_say() -> None:
    for product in sample_products(300, seed=1):
        text = f"{product.title}. {product.description}"
        words = {part: " ".join(text[start:end] for start, end in spans).lower() for part, spans in product.spans.items()}
        assert product.look.colour in words["garment"] and product.article.noun in words["garment"]
        look = product.look
        assert look.pattern in words["garment"] and (look.pattern == "plain" or look.accent in words["garment"])
        if look.motif:
            assert words["print"] == f"{look.accent} a {look.motif}"
        for part, style in zip(product.article.parts, look.parts, strict=True):
            assert (part.name in words) == bool(style)
            assert not style or words[part.name] == f"{look.accent} {style}"
        named = re.findall(r"[a-z]+", text.lower())
        assert [word for word in named if word in COLOURS] == [colour for colour in (look.colour, look.accent) if colour]
        assert bool(look.accent) == (bool(look.motif) or look.pattern != "plain" or any(look.parts))


def test_masks_and_boxes_are_those_of_the_picture() -> None:
    ious = []
    for product in sample_products(40, seed=2):
        photograph = draw_photograph(product, 0, 2, 224)
        image = np.asarray(Image.open(io.BytesIO(photograph.jpeg)).convert("RGB")).astype(int)
        outside = image[~photograph.mask]
        assert outside.min(axis=1).mean() > 215  # a light background
        x0, y0, x1, y1 = photograph.box
        assert photograph.mask[y0:y1, x0:x1].sum() == photograph.mask.sum() > 0.05 * 224 * 224
        for box in photograph.parts.values():
            assert 0 <= box[0] < box[2] <= 224 and 0 <= box[1] < box[3] <= 224
        ious.append(_iou(find_foreground(image.astype(np.uint8)), photograph.box))
    assert np.mean(ious) > 0.93 and min(ious) > 0.75


def test_a_print_has_its_colour_in_its_box() -> None:
    seen = 0
    for product in sample_products(80, seed=4):
        if not product.look.motif:
            continue
        photograph = draw_photograph(product, 0, 4, 224)
        x0, y0, x1, y1 = photograph.parts["print"]
        image = np.asarray(Image.open(io.BytesIO(photograph.jpeg)).convert("RGB")).astype(float)
        middle = image[(y0 + y1) // 2, (x0 + x1) // 2]
        nearest = min(COLOURS, key=lambda name: np.linalg.norm(middle - COLOURS[name]))
        seen += nearest == product.look.accent
    assert seen >= 20


def test_photographs_of_a_product_differ() -> None:
    product = next(iter(sample_products(1, seed=5)))
    assert draw_photograph(product, 0, 5, 96).jpeg != draw_photograph(product, 1, 5, 96).jpeg


def test_colours_that_meet_stand_out() -> None:
    assert "black" not in contrasting("navy") and "yellow" in contrasting("navy")


def test_truth_has_a_line_a_photograph(tmp_path) -> None:
    generate_catalogue(tmp_path / "a", 5, seed=3, image_size=96)
    lines = [json.loads(line) for line in (tmp_path / "a" / "truth.jsonl").read_text().splitlines()]
    assert len(lines) == len(list((tmp_path / "a" / "images").iterdir())) == len(list((tmp_path / "a" / "masks").iterdir()))
    assert all(line["size"] == [96, 96] and line["parts"] for line in lines)


def test_what_is_there_is_reused_or_refused(tmp_path) -> None:
    assert generate_catalogue(tmp_path / "a", 3, seed=3, image_size=96) is True
    assert generate_catalogue(tmp_path / "a", 3, seed=3, image_size=96) is False
    with pytest.raises(ValueError, match="not empty and not this catalogue"):
        generate_catalogue(tmp_path / "a", 4, seed=3, image_size=96)
    with pytest.raises(ValueError, match="give at least 1 product"):
        generate_catalogue(tmp_path / "b", 0, seed=3)


def _iou(a, b) -> float:
    x0, y0, x1, y1 = max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])
    inner = max(0, x1 - x0) * max(0, y1 - y0)
    area = lambda box: (box[2] - box[0]) * (box[3] - box[1])  # noqa: E731
    return inner / (area(a) + area(b) - inner)


def test_a_catalogue_says_which_drawing_it_is(tmp_path: Path) -> None:
    generate_catalogue(tmp_path / "drawn", 1, seed=0, image_size=64)
    assert drawing_of(tmp_path / "drawn") == VERSION and drawing_of(tmp_path) is None
