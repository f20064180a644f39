"""Retrieval sliced by what the products are: category, sub-category, or a field of their texts such as the colour (SPEC 9).

Of each value the queries that have it, with their R@1 and R@10. And how often the candidate that is ranked first has the
query's value: a wrong answer of the right colour is another error than one of another colour.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from kaleido_fast.data.shards.split import BrokenSample, Split
from kaleido_fast.options import TEXT_FIELDS, OptionError
from kaleido_fast.tasks.metrics import recall_at
from kaleido_fast.tasks.products import Products
from kaleido_fast.tasks.report_parts import Heading, Table, percent
from kaleido_fast.tasks.retrieval import Ranked, Retrieval

CLASSES = ("category", "subcategory")  # what every product has; other names are fields
RECALLS = (1, 10)
LISTED = 20  # values of a name, the most frequent; the rest is one row
NO_VALUE, OTHERS = "(none)", "(others)"
HEADER = ("queries", "image to text R@1", "R@10", "text to image R@1", "R@10")


def check_slices(split: Split, names: Sequence[str]) -> None:
    """Refuse (ValueError) a name that is neither a class nor a field of the shards' texts."""
    known = (*CLASSES, *split.manifest.fields)
    for name in names:
        if name not in known:
            raise OptionError(f"eval.slices={name}: {split.folder} has no such field, it can be sliced by {', '.join(known)}; "
                              "further fields come by prepare with ", TEXT_FIELDS)


def slice_values(split: Split, products: Products, names: Sequence[str], needed: np.ndarray) -> dict[str, np.ndarray]:
    """By name (n,) str: the value of each of the `needed` products, in lower case where it is a field's; "" where it has none.

    Args:
        needed: (m,) products; all others' fields are "".
    """
    classes = {"category": (split.manifest.categories, products.category),
               "subcategory": (split.manifest.subcategories, products.subcategory)}
    fields = [name for name in names if name not in CLASSES]
    values = {name: np.array(classes[name][0], object)[classes[name][1]] if name in CLASSES else
              np.full(len(products), "", object) for name in names}
    for product in np.unique(needed).tolist() if fields else ():
        texts = _fields(split, int(products.first_sample[product]))
        for name in fields:
            values[name][product] = str(texts.get(name, "")).casefold()
    return values


def sliced(result: Retrieval, values: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Of each name "values", a list of {value, queries, itr, tir}, and "first": how often the first has the query's value.

    The queries of all draws count alike.
    """
    sides = {"itr": result.itr, "tir": result.tir}
    queries = np.concatenate([one.draw.queries for one in result.itr])
    ranks = {side: np.concatenate([one.ranks for one in ranked]) for side, ranked in sides.items()}
    firsts = {side: np.concatenate([_first_ranked(one) for one in ranked]) for side, ranked in sides.items()}
    report = {}
    for name, of_product in values.items():
        own = of_product[queries]
        counted = own != ""
        first: dict[str, Any] = {"queries": int(counted.sum())}
        if counted.any():
            first |= {side: float((of_product[best] == own)[counted].mean()) for side, best in firsts.items()}
            first["chance"] = float(np.concatenate([_alike(one, of_product) for one in result.itr])[counted].mean())
        report[name] = {"values": [
            {"value": value, "queries": int(rows.sum()),
             **{side: {f"R@{k}": recall_at(of[rows], k) for k in RECALLS} for side, of in ranks.items()}}
            for value, rows in _groups(own)], "first": first}
    return report


def slice_parts(slices: Mapping[str, Any]) -> list[Heading | Table]:
    """What the report shows of `sliced`."""
    parts: list[Heading | Table] = []
    for name, of_name in slices.items():
        rows = [[of["value"], f"{of['queries']:,}", *(percent(of[side][f"R@{k}"]) for side in ("itr", "tir") for k in RECALLS)]
                for of in of_name["values"]]
        parts += [Heading(f"By {name}"), Table([name, *HEADER], rows)]
        first = of_name["first"]
        if first["queries"]:
            parts.append(Table(
                [f"the first answer has the query's {name}", "image to text", "text to image", "chance"],
                [[f"of {first['queries']:,} queries", *(percent(first[key]) for key in ("itr", "tir", "chance"))]]))
    return parts


def candidates_of(result: Retrieval) -> np.ndarray:
    """(m,) the products that are queries or candidates in any draw."""
    return np.unique(np.concatenate([one.draw.candidates[one.draw.present] for one in result.itr]))


def _fields(split: Split, sample: int) -> dict[str, Any]:
    try:
        return split.record(sample).get("fields", {})
    except BrokenSample:  # `data check` names it; its photograph is a hole in this evaluation, too
        return {}


def _first_ranked(ranked: Ranked) -> np.ndarray:
    """(Q,) products that are ranked first; the right one behind its ties."""
    return np.array([ranked.draw.candidates[row, ranked.best(row, 1)[0]] for row in range(len(ranked.scores))])


def _alike(ranked: Ranked, of_product: np.ndarray) -> np.ndarray:
    """(Q,) share of a query's candidates that have its value: what a first answer drawn by chance gives."""
    draw = ranked.draw
    alike = (of_product[draw.candidates] == of_product[draw.queries][:, None]) & draw.present
    return alike.sum(axis=1) / draw.present.sum(axis=1)


def _groups(own: np.ndarray) -> Iterable[tuple[str, np.ndarray]]:
    """Each value with (Q,) bool which queries have it, the most frequent first; what is past `LISTED` together."""
    values, counts = np.unique(own.astype(str), return_counts=True)
    order = values[np.argsort(-counts, kind="stable")].tolist()
    for value in order[:LISTED]:
        yield value or NO_VALUE, own == value
    if len(order) > LISTED:
        yield OTHERS, np.isin(own.astype(str), order[LISTED:])
