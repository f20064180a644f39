"""Retrieval examples with pictures: a query, the five best candidates, and where the right one came."""

import base64
from typing import Any

from kaleido_fast.report.page import Markup, element, image, section

TEXT_SHOWN = 180  # letters of a product's text


def retrieval_examples(examples: dict[str, Any]) -> Markup:
    """The section of examples.json; empty where there are none."""
    if not any(examples.get(direction) for direction in ("itr", "tir")):
        return Markup("")
    pictures = {key: base64.b64decode(data) for key, data in examples["pictures"].items()}
    note = "The first queries of the first draw, unpicked. The right candidate is green; numbers are scores."
    return section(
        "Retrieval examples",
        element("p", note, css="soft"),
        element("h3", "Image to text"),
        *(_image_to_text(example, pictures) for example in examples["itr"]),
        element("h3", "Text to image"),
        *(_text_to_image(example, pictures) for example in examples["tir"]),
    )


def _image_to_text(example: dict[str, Any], pictures: dict[str, bytes]) -> Markup:
    query = element("div", _picture(example["query"], pictures), _rank(example), css="query")
    found = [
        element("li", f"{_text(one)} ({one['score']:.2f})", css="right" if one["right"] else "")
        for one in example["top"]
    ]
    return element("div", query, element("div", element("ol", *found), css="found"), css="example")


def _text_to_image(example: dict[str, Any], pictures: dict[str, bytes]) -> Markup:
    query = element("div", _text(example["query"]), _rank(example), css="query")
    found = [
        element("div", _picture(one, pictures), f"{one['score']:.2f}", css="right" if one["right"] else "")
        for one in example["top"]
    ]
    strip = element("div", *found, css="strip")
    return element("div", query, element("div", strip, css="found"), css="example")


def _text(product: dict[str, Any]) -> str:
    text = " ".join(product["text"].split())
    return text if len(text) <= TEXT_SHOWN else f"{text[: TEXT_SHOWN - 2].rstrip()} …"  # many scripts have no spaces


def _rank(example: dict[str, Any]) -> Markup:
    return element("p", f"right answer at rank {example['rank']} of {example['candidates']}", css="soft")


def _picture(product: dict[str, Any], pictures: dict[str, bytes]) -> Markup:
    return image(pictures[product["picture"]], "jpeg", f"product {product['id']}")
