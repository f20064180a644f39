"""How well a fine-tuned classifier tells the classes of a split: from the photograph alone, the text alone, both (SPEC 9).

A product is shown by its first photograph. A class that the training split lacks counts as wrong, and is named.
"""

import base64
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from kaleido_fast.finetune.confusion import confusion_picture, largest_mistakes
from kaleido_fast.model.embeddings import FRAME
from kaleido_fast.tasks.heldout import EncodedSplit, HeldOut, SplitRole
from kaleido_fast.tasks.measure import Examples, Measure, Measured, Numbers
from kaleido_fast.tasks.metrics import accuracy, macro_f1, macro_f1_all
from kaleido_fast.tasks.products import Products
from kaleido_fast.tasks.recognition import pool_products
from kaleido_fast.tasks.report_parts import Answer, Card, Example, Heading, Picture, Section, Table, percent
from kaleido_fast.tasks.retrieval_examples import jpeg_pictures
from kaleido_fast.tasks.settings import EvalSettings

Kind = Literal["category", "subcategory"]
TITLES = {"category": "category", "subcategory": "sub-category"}
SHOWN = {"image": "photograph alone", "text": "text alone", "both": "both"}
PROTOCOL = "linear map on the pooled output, fine-tuned end to end; a product by its first photograph"
BEST = 3  # answers of an example
LISTED = 20  # classes that training lacks, named one by one


def classes_measure(kind: Kind) -> Measure:
    """The row of a classifier's measure."""
    title, counted = TITLES[kind], f"{kind}_classifier"

    def measure(heldout: HeldOut) -> Measured:
        return _measure(kind, heldout)

    def headline(numbers: Numbers) -> str:
        of = numbers[kind]
        given = ", ".join(f"{SHOWN[name]} {percent(of[name]['accuracy'])} (macro-F1 {of[name]['macro_f1']:.3f})" for name in of)
        return f"{title} of {numbers[counted]['products']:,} products by {given}; most frequent {percent(_chance(of))}"

    def cards(numbers: Numbers) -> list[Card]:
        of = numbers[kind]
        return [Card(f"{title}, {SHOWN[name]}", percent(of[name]["accuracy"]),
                     f"macro-F1 {of[name]['macro_f1']:.3f}; most frequent {percent(_chance(of))}") for name in of]

    def section(numbers: Numbers) -> Section:
        return _section(kind, numbers)

    def examples(examples: Examples) -> Section | None:
        return _examples(kind, examples)

    return Measure(keys=(kind, counted), measure=measure, headline=headline, section=section, samples=_samples, cards=cards,
                   examples=examples)


def _samples(role: SplitRole, products: Products, settings: EvalSettings) -> np.ndarray:
    return products.first_sample if role == "measured" else np.empty(0, np.int64)


def _measure(kind: Kind, heldout: HeldOut) -> Measured:
    split, model = heldout.split("measured"), heldout.model
    assert model.classifier is not None and model.finetuned is not None
    products, known = split.products, list(model.finetuned.labels)
    names = split.split.manifest.categories if kind == "category" else split.split.manifest.subcategories
    everything = [*known, *(name for name in names if name not in known)]
    labels = np.array([everything.index(name) for name in names])[getattr(products, kind)]
    has_text = products.lengths > FRAME
    pooled = pool_products(split.encoder.pooled, products.first_sample, np.arange(len(products)), products.lengths,
                           heldout.settings.batch_pairs)
    with torch.inference_mode():
        probabilities = {name: model.classifier(rows.to(model.classifier.weight)).softmax(-1).cpu()
                         for name, rows in pooled.items() if name == "image" or has_text.any()}
    predicted = {name: rows.argmax(-1).numpy() for name, rows in probabilities.items()}
    unseen = {name: int((labels == number).sum()) for number, name in enumerate(everything)
              if number >= len(known) and (labels == number).any()}
    numbers: dict[str, Any] = {
        kind: {name: _figures(predicted[name], labels, len(everything)) for name in predicted},
        f"{kind}_classifier": {
            "protocol": PROTOCOL, "products": len(products), "classes": len(known), "without_text": int((~has_text).sum()),
            "unseen": unseen, "mistakes": largest_mistakes(predicted["image"], labels, everything)}}
    answers = _Answers(kind, split, everything, labels, probabilities)
    shown = answers.chosen(heldout.settings.examples)
    pictures = jpeg_pictures(split.batches(np.sort(products.first_sample[shown]), photographs=True))
    return Measured(numbers, {f"{kind}_examples": [answers.example(row) for row in shown]}, pictures,
                    [answers.sample(row) for row in range(len(products))])


def _figures(predicted: np.ndarray, labels: np.ndarray, num_labels: int) -> dict[str, float]:
    return {"accuracy": accuracy(predicted, labels), "macro_f1": macro_f1(predicted, labels),
            "macro_f1_all": macro_f1_all(predicted, labels, num_labels),
            "most_frequent": float(np.bincount(labels).max() / len(labels))}


class _Answers:
    """What was answered of each product."""

    def __init__(
        self, kind: Kind, split: EncodedSplit, names: list[str], labels: np.ndarray, probabilities: dict[str, Tensor]
    ) -> None:
        self._kind, self._split, self._names, self._labels = kind, split, names, labels
        self._probabilities = probabilities
        self._predicted = {name: rows.argmax(-1).numpy() for name, rows in probabilities.items()}

    def chosen(self, count: int) -> list[int]:
        """Products that the report shows, by their photograph: the surest wrong answers, then right ones spread evenly."""
        sure, right = self._probabilities["image"].max(-1).values.numpy(), self._predicted["image"] == self._labels
        wrong = np.flatnonzero(~right)
        wrong = wrong[np.argsort(-sure[wrong], kind="stable")][:count]
        rest = np.flatnonzero(right)
        spread = rest[np.linspace(0, len(rest) - 1, min(count, len(rest))).astype(int)] if len(rest) and count else rest[:0]
        return [*wrong.tolist(), *spread.tolist()]

    def example(self, row: int) -> dict[str, Any]:
        """As examples.json has it."""
        best, numbers = self._probabilities["image"][row].topk(min(BEST, self._probabilities["image"].shape[1]))
        return self._product(row) | {
            "picture": str(int(self._split.products.first_sample[row])),
            "answers": [[self._names[number], probability] for number, probability in
                        zip(numbers.tolist(), best.tolist(), strict=True)]}

    def sample(self, row: int) -> dict[str, Any]:
        """As the file of answers has it: by input the answer and its probability."""
        return self._product(row) | {
            name: {"predicted": self._names[int(self._predicted[name][row])], "probability": float(rows[row].max())}
            for name, rows in self._probabilities.items()}

    def _product(self, row: int) -> dict[str, Any]:
        return {"id": self._split.split.products["id"][row].decode(), self._kind: self._names[int(self._labels[row])]}


def _chance(by_input: dict[str, Any]) -> float:
    return by_input["image"]["most_frequent"]


def _section(kind: Kind, numbers: Numbers) -> Section:
    of, counted = numbers[kind], numbers[f"{kind}_classifier"]
    rows = [[SHOWN[name], percent(one["accuracy"]), f"{one['macro_f1']:.3f}", f"{one['macro_f1_all']:.3f}",
             percent(one["most_frequent"])] for name, one in of.items()]
    header = ["", "accuracy", "macro-F1", "over all labels", "most frequent class"]
    note = (f"A {PROTOCOL}: {counted['products']:,} products of split {numbers['split']}, {counted['classes']} classes. "
            "Macro-F1 is the mean over the classes that occur.")
    if counted["without_text"]:
        note += f" {counted['without_text']:,} products have no text."
    if unseen := counted["unseen"]:
        named = ", ".join(f"{name} ({number})" for name, number in list(unseen.items())[:LISTED])
        note += (f" {sum(unseen.values()):,} products are of {len(unseen)} classes that training lacks, counted as wrong: "
                 f"{named}{', …' if len(unseen) > LISTED else ''}.")
    parts: list[Heading | Table | Picture | Example] = [Table(header, rows)]
    if mistakes := counted["mistakes"]:
        pairs = [[pair["is"], pair["taken_for"], f"{pair['products']:,}"] for pair in mistakes["pairs"]]
        parts += [Heading("The largest mistakes, from the photograph alone"),
                  Picture(confusion_picture(mistakes["classes"], mistakes["counts"]), "png",
                          "rows: what products are; columns: what they are taken for"),
                  Table(["is", "taken for", "products"], pairs)]
    return Section(TITLES[kind].capitalize(), note, parts)


def _examples(kind: Kind, examples: Examples) -> Section | None:
    shown = examples.get(f"{kind}_examples")
    if not shown:
        return None
    pictures = {key: base64.b64decode(data) for key, data in examples["pictures"].items()}

    def part(one: dict[str, Any]) -> Example:
        right = one["answers"][0][0] == one[kind]
        note = f"{one['id']}: {'right' if right else 'is ' + one[kind]}"
        answers = [Answer(name, name == one[kind], probability) for name, probability in one["answers"]]
        return Example(Picture(pictures[one["picture"]], "jpeg", f"product {one['id']}"), note, answers)

    wrong, right = ([one for one in shown if (one["answers"][0][0] == one[kind]) == is_right] for is_right in (False, True))
    return Section(f"{TITLES[kind].capitalize()} examples",
                   "From the photograph alone, with the probability of each answer; the right answer is green.",
                   [Heading("Wrong, the surest first"), *map(part, wrong), Heading("Right, evenly spread"), *map(part, right)])
