"""Retrieval's row: image to text (ITR) and text to image (TIR), 1 in 101, by the pre-trained matching head (SPEC 9)."""

import base64
from typing import Any

import numpy as np

from kaleido_fast.tasks.candidates import Draw
from kaleido_fast.tasks.heldout import HeldOut, SplitRole
from kaleido_fast.tasks.measure import Examples, Measure, Measured, Numbers
from kaleido_fast.tasks.products import Products
from kaleido_fast.tasks.report_parts import Answer, Card, Example, Heading, Picture, Section, Table, percent
from kaleido_fast.tasks.retrieval import draw_retrieval, photographs_of, retrieval_report, retrieve, sum_of_recalls
from kaleido_fast.tasks.retrieval_examples import collect_examples
from kaleido_fast.tasks.settings import EvalSettings

DIRECTIONS = {"itr": "image to text (ITR)", "tir": "text to image (TIR)"}
TEXT_SHOWN = 180  # letters of a product's text


def _draws(products: Products, settings: EvalSettings) -> list[Draw]:
    return draw_retrieval(products, num_queries=settings.queries, num_draws=settings.draws, seed=settings.seed)


def _samples(role: SplitRole, products: Products, settings: EvalSettings) -> np.ndarray:
    """Photographs of all queries and candidates."""
    return photographs_of(products, _draws(products, settings) if role == "measured" else [])


def _measure(heldout: HeldOut) -> Measured:
    split, settings = heldout.split("measured"), heldout.settings
    result = retrieve(split.products, _draws(split.products, settings), split.encoder, settings.batch_pairs)
    examples, pictures = collect_examples(
        result, split.products, split.split, lambda samples: split.batches(samples, photographs=True), settings.examples)
    itr, tir = retrieval_report(result.itr), retrieval_report(result.tir)
    return Measured({"itr": itr, "tir": tir, "sum_r": sum_of_recalls(itr, tir)}, examples, pictures)


def _headline(numbers: Numbers) -> str:
    itr = numbers["itr"]
    recalls = ", ".join(f"{key.upper()} R@1 {percent(numbers[key]['R@1'])} R@10 {percent(numbers[key]['R@10'])}"
                        for key in DIRECTIONS)
    return (f"{recalls} (1 in {itr['candidates']}, {itr['queries']} queries x {itr['draws']}; chance R@1 "
            f"{_chance('R@1', itr)} R@10 {_chance('R@10', itr)})")


def _cards(numbers: Numbers) -> list[Card]:
    return [
        Card(f"R@1, {name}", percent(one["R@1"]),
             f"R@10 {percent(one['R@10'])}; chance {_chance('R@1', one)}, 1 in {one['candidates']}")
        for one, name in ((numbers[key], name) for key, name in DIRECTIONS.items())
    ]


def _section(numbers: Numbers) -> Section:
    itr = numbers["itr"]
    recalls = [name for name in itr if name.startswith("R@")]
    rows = [[name, *(_with_spread(numbers[key], recall) for recall in recalls)] for key, name in DIRECTIONS.items()]
    rows.append(["chance", *(_chance(recall, itr) for recall in recalls)])
    protocol = (
        f"{itr['queries']} queries, each ranked among {itr['candidates']} candidates (the right one "
        "included): products, one photograph each, of the sub-category, then the category, then the split; "
        f"{itr['draws']} draw(s); "
        "ties count against the model. Ranked by the pre-trained image-text matching head. SumR (R@1, R@5 "
        f"and R@10 of both directions): {numbers['sum_r']:.1f} of 600."
    )
    return Section("Retrieval", protocol, [Table(["", *recalls], rows)])


def _with_spread(direction: dict[str, Any], recall: str) -> str:
    spread = direction.get("spread")
    return percent(direction[recall]) + (f" ± {100 * spread[recall]:.1f}" if spread else "")


def _chance(recall: str, direction: dict[str, Any]) -> str:
    """Recall at k, "R@k", of a score that knows nothing."""
    return percent(min(int(recall.removeprefix("R@")) / direction["candidates"], 1.0))


def _examples(examples: Examples) -> Section | None:
    """A query of each kind, its best candidates, and where the right one came."""
    if not any(examples.get(key) for key in DIRECTIONS):
        return None
    pictures = {key: base64.b64decode(data) for key, data in examples["pictures"].items()}

    def photograph(product: dict[str, Any]) -> Picture:
        return Picture(pictures[product["picture"]], "jpeg", f"product {product['id']}")

    note = "The first queries of the first draw, unpicked. The right candidate is green; numbers are scores."
    return Section("Retrieval examples", note, [
        Heading("Image to text"), *(_example(example, photograph, _text) for example in examples["itr"]),
        Heading("Text to image"), *(_example(example, _text, photograph) for example in examples["tir"]),
    ])


def _example(example: dict[str, Any], given: Any, answer: Any) -> Example:
    """`given` and `answer` make of a product what is shown of it: its photograph, or its text."""
    return Example(
        given(example["query"]), f"right answer at rank {example['rank']} of {example['candidates']}",
        [Answer(answer(product), product["right"], product["score"]) for product in example["top"]])


def _text(product: dict[str, Any]) -> str:
    text = " ".join(product["text"].split())
    return text if len(text) <= TEXT_SHOWN else f"{text[: TEXT_SHOWN - 2].rstrip()} …"  # many scripts have no spaces


RETRIEVAL = Measure(
    keys=("itr", "tir", "sum_r"), measure=_measure, headline=_headline, section=_section, samples=_samples, cards=_cards,
    examples=_examples)
