"""Recognition's row: category and sub-category by a linear probe on the frozen pooled output (SPEC 9)."""

import numpy as np

from kaleido_fast.tasks.heldout import HeldOut, SplitRole
from kaleido_fast.tasks.measure import Measure, Measured, Numbers
from kaleido_fast.tasks.products import Products
from kaleido_fast.tasks.recognition import Recognisable, choose_products, pool_products, recognise
from kaleido_fast.tasks.report_parts import Card, Section, Table, percent
from kaleido_fast.tasks.settings import EvalSettings

KINDS = ("category", "subcategory")
INPUTS_SHOWN = {"image": "image alone", "text": "text alone", "both": "both"}


def _chosen(role: SplitRole, products: Products, settings: EvalSettings) -> np.ndarray:
    """(n,) int64 the products that the probe learns from, is tuned on, or is measured on."""
    return choose_products(
        len(products), settings.probe_train if role == "train" else settings.probe_test, settings.seed)


def _samples(role: SplitRole, products: Products, settings: EvalSettings) -> np.ndarray:
    """The first photograph of each chosen product."""
    return products.first_sample[_chosen(role, products, settings)]


def _recognisable(heldout: HeldOut, role: SplitRole) -> Recognisable:
    """Pooled outputs and classes of the chosen products, each by its first photograph."""
    split = heldout.split(role)
    products, chosen = split.products, _chosen(role, split.products, heldout.settings)
    pooled = pool_products(split.encoder.pooled, products.first_sample[chosen], chosen, products.lengths[chosen],
                           heldout.settings.batch_pairs)
    return Recognisable(pooled, products.category[chosen], products.subcategory[chosen])


def _measure(heldout: HeldOut) -> Measured:
    manifest = heldout.split("measured").split.manifest
    classes = {"category": len(manifest.categories), "subcategory": len(manifest.subcategories)}
    train, validation, measured = (_recognisable(heldout, role) for role in ("train", "validation", "measured"))
    return Measured(recognise(train, validation, measured, classes, heldout.settings))


def _headline(numbers: Numbers) -> str:
    image = numbers["category"]["image"]
    return f"category from the image alone {percent(image['accuracy'])} (most frequent {percent(image['most_frequent'])})"


def _cards(numbers: Numbers) -> list[Card]:
    image = numbers["category"]["image"]
    note = f"linear probe; most frequent {percent(image['most_frequent'])}"
    return [Card("category, image alone", percent(image["accuracy"]), note)]


def _section(numbers: Numbers) -> Section:
    rows = [
        [f"{kind}, {name}", percent(one["accuracy"]), f"{one['macro_f1']:.3f}", f"{one['macro_f1_all']:.3f}",
         percent(one["most_frequent"])]
        for kind in KINDS
        for given, name in INPUTS_SHOWN.items()
        for one in [numbers[kind][given]]
    ]
    probe = numbers["probe"]
    protocol = (
        f"Linear probe on the frozen pooled output: {probe['train_products']} train products, L2 strength "
        f"chosen on {probe['validation_products']} validation products, measured on {probe['test_products']} "
        "others."
    )
    header = ["", "accuracy", "macro-F1", "over all labels", "most frequent class"]
    return Section("Recognition", protocol, [Table(header, rows)])


RECOGNITION = Measure(
    keys=(*KINDS, "probe"), measure=_measure, headline=_headline, section=_section, samples=_samples, cards=_cards)
